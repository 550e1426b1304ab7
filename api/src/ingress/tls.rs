//! Certificates of clients (`auth-tls-*`) and TLS towards backends (`proxy-ssl-*`), read out of annotations. Pure.
//!
//! Authorities and certificates are Secrets of the Ingress's own namespace. What is said of versions and ciphers is not carried out.
//! Source: ingress-nginx, "Client Certificate Authentication", "Backend Certificate Authentication".

use serde_json::json;

use super::read::Reader;
use super::steps::step;
use crate::kinds::route_policy::FilterStep;

/// Options of a listener: by which it asks clients for certificates, and which TLS it speaks.
pub mod option {
    /// What all of them begin with.
    pub const OURS: &str = "atoll.dev/";
    /// The oldest version that is spoken: 1.2 or 1.3.
    pub const MIN_VERSION: &str = "atoll.dev/min-version";
    /// The ciphers that are spoken, and no others.
    pub const CIPHERS: &str = "atoll.dev/ciphers";
    /// A Secret of the listener's namespace, or NAMESPACE/NAME, whose `ca.crt` vouches for clients.
    pub const CLIENT_CA: &str = "atoll.dev/client-ca";
    /// `optional`: whoever shows none comes in, too; `unchecked`: whatever is shown.
    pub const CLIENT_VERIFY: &str = "atoll.dev/client-verify";
    /// At most so many certificates stand between a client's and the authority's.
    pub const CLIENT_DEPTH: &str = "atoll.dev/client-depth";
}

/// How certificates of clients are asked for at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clients {
    /// Namespace and name of the Secret.
    pub(super) secret: (String, String),
    /// None is let in without one.
    required: bool,
    /// It need not be vouched for.
    unchecked: bool,
    depth: u32,
    subject: Option<String>,
    forward: bool,
    error_page: Option<String>,
}

impl Clients {
    pub(super) fn read(reader: &mut Reader, namespace: &str) -> Option<Self> {
        let verify = reader.text("auth-tls-verify-client").unwrap_or_else(|| "on".to_owned());
        let secret = own_secret(reader, "auth-tls-secret", namespace);
        let others = ["auth-tls-verify-client", "auth-tls-verify-depth", "auth-tls-match-cn"];
        let named = reader.text("auth-tls-secret").is_some();
        if verify == "off" {
            return None;
        }
        let Some(secret) = secret else {
            if let Some(other) = others.iter().find(|name| !named && reader.text(name).is_some()) {
                reader.refuse(other, "auth-tls-secret is absent");
            }
            return None;
        };
        if !matches!(verify.as_str(), "on" | "optional" | "optional_no_ca") {
            reader.refuse("auth-tls-verify-client", format!("`{verify}` is not on, off, optional or optional_no_ca"));
            return None;
        }
        let subject = reader.text("auth-tls-match-cn");
        if let Some(Err(error)) = subject.as_deref().map(regex::Regex::new) {
            let why = error.to_string().lines().last().unwrap_or_default().to_owned();
            reader.refuse("auth-tls-match-cn", why);
            return None;
        }
        Some(Self {
            secret: (namespace.to_owned(), secret),
            required: verify == "on",
            unchecked: verify == "optional_no_ca",
            depth: reader.number("auth-tls-verify-depth").unwrap_or(1),
            subject,
            forward: reader.flag("auth-tls-pass-certificate-to-upstream").unwrap_or(false),
            error_page: reader.text("auth-tls-error-page"),
        })
    }

    /// The options of a listener that say so.
    pub(super) fn options(&self, own: &str) -> Vec<(String, String)> {
        let (namespace, name) = &self.secret;
        let secret = if namespace == own { name.clone() } else { format!("{namespace}/{name}") };
        let verify = if self.unchecked { "unchecked" } else { "optional" };
        vec![
            (option::CLIENT_CA.to_owned(), secret),
            (option::CLIENT_VERIFY.to_owned(), verify.to_owned()),
            (option::CLIENT_DEPTH.to_owned(), self.depth.to_string()),
        ]
    }

    /// The filter that keeps out whoever shows none, and tells the backend.
    pub(super) fn step(&self) -> FilterStep {
        let mut written = json!({"required": self.required, "forward": self.forward});
        if let Some(subject) = &self.subject {
            written["subjectPattern"] = json!(subject);
        }
        if let Some(page) = &self.error_page {
            written["errorPage"] = json!(page);
        }
        step("clientCertificate", written)
    }
}

/// How TLS is spoken to the backends of an Ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// The Secret of the same namespace whose `ca.crt` vouches for them; its `tls.crt` and `tls.key` are shown to them, where they are there.
    pub secret: String,
    /// Whose certificate they must show.
    pub name: String,
    /// At most so many certificates stand between theirs and the authority's.
    pub depth: u32,
}

impl BackendTls {
    pub(super) fn read(reader: &mut Reader, namespace: &str) -> Option<Self> {
        let secret = own_secret(reader, "proxy-ssl-secret", namespace);
        let verify = reader.flag("proxy-ssl-verify").unwrap_or(false);
        let depth = reader.number("proxy-ssl-verify-depth").unwrap_or(1);
        let name = reader.text("proxy-ssl-name");
        // What is asked for goes by the name anyway, so that the right certificate is shown.
        let _ = reader.flag("proxy-ssl-server-name");
        if let Some(protocols) = reader.text("proxy-ssl-protocols")
            && !protocols.split_whitespace().any(|one| matches!(one, "TLSv1.2" | "TLSv1.3"))
        {
            reader.refuse("proxy-ssl-protocols", format!("`{protocols}`: TLS 1.2 and 1.3 are spoken"));
        }
        match (secret, verify, name) {
            (Some(secret), true, Some(name)) => Some(Self { secret, name, depth }),
            (None, false, _) => None,
            (None, true, _) => {
                reader.refuse("proxy-ssl-verify", "proxy-ssl-secret, which says whom to trust, is absent");
                None
            }
            (Some(_), false, _) => {
                reader.refuse("proxy-ssl-verify", "it is off: nobody is spoken to whose certificate isn't checked");
                None
            }
            (Some(_), true, None) => {
                reader.refuse("proxy-ssl-name", "it is absent: nobody knows which name the certificate must have");
                None
            }
        }
    }
}

/// The name of a Secret that is named with or without its namespace, which must be the own.
fn own_secret(reader: &mut Reader, annotation: &str, namespace: &str) -> Option<String> {
    let written = reader.text(annotation)?;
    match written.split_once('/') {
        Some((at, name)) if at == namespace => Some(name.to_owned()),
        Some(_) => {
            reader.refuse(annotation, format!("Secret `{written}` is of another namespace"));
            None
        }
        None => Some(written),
    }
}
