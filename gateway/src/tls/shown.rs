//! The certificate that a client showed, as backends are told of it. Pure.
//!
//! Source: ngx_http_ssl_module ($ssl_client_escaped_cert, $ssl_client_s_dn); RFC 4514 (names as text, the last part first).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::X509Name;

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) certificate: CertificateDer<'static>,
    /// An authority that the listener trusts vouches for it.
    pub(crate) verified: bool,
}

impl Shown {
    /// Whose it is, and who says so.
    pub(crate) fn names(&self) -> Option<(String, String)> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.certificate).ok()?;
        Some((distinguished(parsed.subject()), distinguished(parsed.issuer())))
    }

    /// As PEM, in the letters that headers and URLs can hold.
    pub(crate) fn escaped(&self) -> String {
        let text = BASE64_STANDARD.encode(&self.certificate);
        let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned());
        let body = lines.collect::<Vec<_>>().join("\n");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        pem.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:02X}", u32::from(c)) }).collect()
    }
}

fn distinguished(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let each = rdn.iter().map(|attribute| {
                let kind = attribute.attr_type();
                let known = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
                format!("{known}={}", escaped(attribute.as_str().unwrap_or_default()))
            });
            each.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// RFC 4514 §2.4.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') || at == 0 && matches!(c, '#' | ' ');
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_nginx_tells_them() {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop, Inc");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "anna");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        let shown = Shown { certificate, verified: true };
        let (subject, issuer) = shown.names().unwrap();
        assert_eq!((subject.as_str(), issuer.as_str()), ("CN=anna,O=Shop\\, Inc", "CN=anna,O=Shop\\, Inc"));
        let escaped = shown.escaped();
        assert!(escaped.starts_with("-----BEGIN%20CERTIFICATE-----%0A") && escaped.ends_with("-----%0A"), "{escaped}");
        assert!(escaped.chars().all(|c| c.is_ascii_graphic() && c != '+' && c != '/'));
    }
}
