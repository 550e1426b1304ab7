//! TLS towards endpoints: whose certificates are trusted, which names they must have, and who we are to them.
//!
//! Source: Gateway API, BackendTLSPolicy: "if SubjectAltNames is specified, the certificate MUST match one of them, and Hostname is only
//! for SNI".

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use atoll_api::kinds::gateway::SubjectAltName;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

use super::certificate::{Authorities, Certificate};
use crate::table::Host;

/// How certificates of endpoints are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendCheck {
    pub(crate) trusted: Vec<Arc<Authorities>>,
    /// Whom the machine trusts is trusted.
    pub(crate) system: bool,
    /// The server name asked for.
    pub(crate) name: String,
    /// Names of which certificates must have one; none: the server name.
    pub(crate) names: Vec<SubjectAltName>,
    /// At most so many certificates stand between theirs and the authority's.
    pub(crate) depth: Option<usize>,
}

/// TLS to the endpoints of one upstream. Two are the same if they were made of the same.
pub(crate) struct BackendTls {
    id: String,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl BackendTls {
    pub(super) fn new(id: String, config: Arc<ClientConfig>, name: &str) -> Result<Self, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is no server name"))?;
        Ok(Self { id, config, name })
    }
}

impl PartialEq for BackendTls {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for BackendTls {}

impl Hash for BackendTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl std::fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BackendTls").field(&self.name).finish()
    }
}

impl BackendCheck {
    pub(super) fn key(&self, client: Option<&Arc<Certificate>>, protocol: Option<&str>) -> String {
        let trusted: Vec<&str> = self.trusted.iter().map(|a| a.id.as_str()).collect();
        let client = client.map(|c| c.id.as_str());
        format!("{} {:?} {trusted:?} {} {:?} {client:?} {protocol:?}", self.name, self.names, self.system, self.depth)
    }

    pub(super) fn config(
        &self,
        provider: &Arc<CryptoProvider>,
        system: &RootCertStore,
        client: Option<&Arc<Certificate>>,
        protocol: Option<&str>,
    ) -> Result<ClientConfig, String> {
        let roots = if self.system { system.clone() } else { Authorities::roots(&self.trusted) };
        let (names, depth) = (self.names.clone(), self.depth);
        let verifier = Verifier { roots, names, depth, provider: Arc::clone(provider) };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client {
            Some(client) => builder.with_client_cert_resolver(Arc::new(Ours(Arc::clone(client)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocol.into_iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// Our certificate for whoever asks.
#[derive(Debug)]
struct Ours(Arc<Certificate>);

impl ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    names: Vec<SubjectAltName>,
    depth: Option<usize>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.depth.is_some_and(|depth| super::server::between(intermediates) > depth) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)?;
        } else if !has_one(end_entity, &self.names) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    atoll_reach::judge_signatures!(provider);
}

/// Whether a certificate has one of the names. A wildcard of the certificate stands for one label (RFC 9525 §6.3).
fn has_one(certificate: &[u8], names: &[SubjectAltName]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(held)) = parsed.subject_alternative_name() else { return false };
    held.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(held) => names.iter().any(|n| n.name_type == "Hostname" && is_host(held, &n.hostname)),
        GeneralName::URI(held) => names.iter().any(|n| n.name_type == "URI" && n.uri == *held),
        _ => false,
    })
}

fn is_host(held: &str, wanted: &str) -> bool {
    match (Host::parse(held), Host::parse(wanted)) {
        (held, wanted) if held == wanted => true,
        (Host::Below(suffix), Host::Exact(name)) => name.split_once('.').is_some_and(|(_, rest)| *rest == *suffix),
        // `*.example.com` wanted: any one name right below it.
        (Host::Exact(name), Host::Below(suffix)) => name.split_once('.').is_some_and(|(_, rest)| *rest == *suffix),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_certificates_are_hosts_or_uris() {
        let host =
            |name: &str| SubjectAltName { name_type: "Hostname".into(), hostname: name.into(), uri: String::new() };
        let uri = |name: &str| SubjectAltName { name_type: "URI".into(), hostname: String::new(), uri: name.into() };
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".into(), "*.wild.test".into()]).unwrap();
        parameters.subject_alt_names.push(rcgen::SanType::URI("spiffe://a/b".try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        for (wanted, fits) in [
            (vec![host("a.test")], true),
            (vec![host("A.Test")], true),
            (vec![host("b.test")], false),
            (vec![host("x.wild.test")], true),
            (vec![host("x.y.wild.test")], false),
            (vec![host("*.test")], true),
            (vec![uri("spiffe://a/b")], true),
            (vec![uri("spiffe://a/c")], false),
            (vec![host("b.test"), uri("spiffe://a/b")], true),
        ] {
            assert_eq!(has_one(certificate.der(), &wanted), fits, "{wanted:?}");
        }
    }
}
