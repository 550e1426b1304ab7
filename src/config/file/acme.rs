//! What the file says of the CA that certificates are ordered from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use atoll_gateway::{AcmeBinding, AcmeBindingKey, AcmeKeyType, AcmeProving, AcmeSettings};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::gateway::named;
use crate::config::values::yes_or_no;

/// A CA gives up an order that is not proven for longer.
const SPREADS_MAX: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileAcme {
    directory: String,
    #[serde(default)]
    contact: Vec<String>,
    agree_to_terms: Option<String>,
    ca_file: Option<PathBuf>,
    ca: Option<String>,
    external_account: Option<FileBinding>,
    profile: Option<String>,
    key_type: Option<String>,
    challenge: Option<String>,
    dns_spread_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileBinding {
    key_id: String,
    key_file: Option<PathBuf>,
    key_secret: Option<String>,
}

impl FileAcme {
    pub(super) fn check(self) -> anyhow::Result<AcmeSettings> {
        let host = self.directory.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        if host.is_none_or(str::is_empty) || self.directory.contains(char::is_whitespace) {
            bail!("gateway.acme.directory: `{}` is not the https:// URL of a CA's directory", self.directory);
        }
        let agrees = self.agree_to_terms.map_or(Ok(false), |said| yes_or_no("gateway.acme.agreeToTerms", &said))?;
        if !agrees {
            bail!("gateway.acme.agreeToTerms: read the terms that `{}` names, and say `true`", self.directory);
        }
        let key = match self.key_type.as_deref() {
            None | Some("P-256") => AcmeKeyType::P256,
            Some("P-384") => AcmeKeyType::P384,
            Some(other) => bail!("gateway.acme.keyType: `{other}` is none of P-256, P-384"),
        };
        let spreads = Duration::from_secs(self.dns_spread_seconds.unwrap_or_default());
        if spreads > SPREADS_MAX {
            bail!("gateway.acme.dnsSpreadSeconds: `{}` is more than {}", spreads.as_secs(), SPREADS_MAX.as_secs());
        }
        let proving = match self.challenge.as_deref() {
            Some("dns-01") => AcmeProving::Dns(spreads),
            None | Some("http-01") if spreads.is_zero() => AcmeProving::Http,
            None | Some("http-01") => bail!("gateway.acme.dnsSpreadSeconds: only with `challenge: dns-01`"),
            Some(other) => bail!("gateway.acme.challenge: `{other}` is none of http-01, dns-01"),
        };
        Ok(AcmeSettings {
            directory: self.directory,
            contact: self.contact.into_iter().map(contact).collect::<Result<_, _>>()?,
            roots: authorities(self.ca_file.as_deref(), self.ca.as_deref())?.map(Arc::new),
            binding: self.external_account.map(FileBinding::check).transpose()?,
            profile: self.profile.filter(|profile| !profile.is_empty()),
            key,
            proving,
        })
    }
}

impl FileBinding {
    fn check(self) -> anyhow::Result<AcmeBinding> {
        const AT: &str = "gateway.acme.externalAccount";
        let key = match (self.key_file, self.key_secret) {
            (Some(path), None) => {
                let at = || format!("{AT}.keyFile: `{}`", path.display());
                let text = std::fs::read_to_string(&path).with_context(at)?;
                let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
                AcmeBindingKey::Here(key.map_err(|_| anyhow!("no base64url, as CAs hand keys out")).with_context(at)?)
            }
            (None, Some(said)) => {
                let (namespace, name) = named("gateway.acme.externalAccount.keySecret", &said, "Secret")?;
                AcmeBindingKey::Secret(namespace, name)
            }
            _ => bail!("{AT}: either `keyFile` or `keySecret` has the key of `{}`", self.key_id),
        };
        Ok(AcmeBinding { key_id: self.key_id, key })
    }
}

/// An address of mail, or a URL.
fn contact(said: String) -> anyhow::Result<String> {
    let address = said.strip_prefix("mailto:").unwrap_or(&said);
    match address.split_once('@') {
        Some((name, host)) if !name.is_empty() && host.contains('.') && !address.contains([' ', ',', '?']) => {
            Ok(format!("mailto:{address}"))
        }
        _ => bail!("gateway.acme.contact: `{said}` is no address of mail, such as ops@example.com"),
    }
}

/// The authorities that vouch for the CA's server.
fn authorities(file: Option<&Path>, text: Option<&str>) -> anyhow::Result<Option<RootCertStore>> {
    match (file, text) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => bail!("gateway.acme: `caFile` or `ca`, not both"),
        (None, Some(text)) => roots(text).context("gateway.acme.ca").map(Some),
        (Some(path), None) => {
            let at = || format!("gateway.acme.caFile: `{}`", path.display());
            let text = std::fs::read_to_string(path).with_context(at)?;
            roots(&text).with_context(at).map(Some)
        }
    }
}

fn roots(text: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        roots.add(certificate.map_err(|error| anyhow!("{error}"))?)?;
    }
    if roots.is_empty() {
        bail!("holds no certificate in PEM");
    }
    Ok(roots)
}
