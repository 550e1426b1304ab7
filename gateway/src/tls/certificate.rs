//! Certificates with their keys, and authorities, as Secrets and ConfigMaps hold them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::table::Host;

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The same for the same certificate.
    pub(super) id: String,
    /// Its names.
    names: Vec<Host>,
    /// End of validity, seconds since 1970.
    pub(crate) not_after: i64,
}

impl Certificate {
    pub(super) fn parse(secret: &Secret, provider: &CryptoProvider) -> Result<Self, String> {
        let data = secret.data.as_ref();
        let part =
            |key: &str| data.and_then(|d| d.get(key)).map(|b| b.0.as_slice()).ok_or_else(|| format!("has no `{key}`"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(part("tls.crt")?)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("tls.crt: {e}"))?;
        let first = chain.first().ok_or("tls.crt: holds no certificate")?;
        let id = digest(first);
        let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|e| format!("tls.crt: {e}"))?;
        let names = parsed.subject_alternative_name().ok().flatten().map(|san| {
            let names = san.value.general_names.iter().filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some(Host::parse(name)),
                _ => None,
            });
            names.collect()
        });
        let (names, not_after) = (names.unwrap_or_default(), parsed.validity().not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(part("tls.key")?).map_err(|e| format!("tls.key: {e}"))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|e| format!("key and certificate: {e}"))?;
        Ok(Self { key: Arc::new(key), id, names, not_after })
    }

    /// Whether it is for a name.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|n| n.covers(name))
    }

    /// The one of these that is for the name, else the first: what clients are shown.
    pub(crate) fn of<'a>(name: &str, all: &'a [Arc<Self>]) -> Option<&'a Arc<Self>> {
        all.iter().find(|certificate| certificate.covers(name)).or(all.first())
    }

    /// For whom it is and until when, for people.
    pub(crate) fn said(&self) -> Value {
        let names: Vec<_> = self.names.iter().map(ToString::to_string).collect();
        let until = Timestamp::from_second(self.not_after).map(|until| until.to_string()).ok();
        json!({"names": names, "notAfter": until, "expired": self.not_after < Timestamp::now().as_second(), "sha256": self.id})
    }
}

/// Authorities that certificates of others are checked against.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authorities {
    pub(super) id: String,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    pub(super) fn parse(pem: &str) -> Result<Self, String> {
        let parsed = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let certificates = parsed.map_err(|e| format!("ca.crt: {e}"))?;
        if certificates.is_empty() {
            return Err("ca.crt: holds no certificate".to_owned());
        }
        let mut roots = rustls::RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|e| format!("ca.crt: {e}"))?;
        }
        Ok(Self { id: digest(pem.as_bytes()), certificates })
    }

    /// All of them as rustls keeps them; each was tried when it was parsed.
    pub(super) fn roots(all: &[Arc<Self>]) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(all.iter().flat_map(|a| a.certificates.iter().cloned()));
        roots
    }
}

fn digest(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
