//! TLS towards clients: which certificate a listener shows, and whether clients must show one of theirs (GEP-91).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::{Authorities, Certificate};
use super::spoken::Spoken;

/// How certificates of clients are checked.
#[derive(Debug, Clone)]
pub(crate) struct ClientCheck {
    pub(crate) trusted: Vec<Arc<Authorities>>,
    pub(crate) asks: Asks,
    /// At most so many certificates stand between a client's and the authority's.
    pub(crate) depth: Option<usize>,
}

/// What is asked of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// A certificate that is trusted.
    Always,
    /// The same, of those who show one.
    IfShown,
    /// Nothing: one that is missing or not trusted is let in all the same.
    Never,
}

/// What makes settings other ones.
pub(super) fn key(
    certificates: &[Arc<Certificate>],
    spoken: &Spoken,
    http: bool,
    clients: Option<&ClientCheck>,
) -> String {
    let ids: Vec<&str> = certificates.iter().map(|c| c.id.as_str()).collect();
    let trusted = clients.map(|c| (c.asks, c.depth, c.trusted.iter().map(|a| a.id.as_str()).collect::<Vec<_>>()));
    format!("{http} {spoken:?} {} {trusted:?}", ids.join(" "))
}

pub(super) fn make(
    (provider, spoken): (&Arc<CryptoProvider>, &Spoken),
    tickets: Option<Arc<dyn ProducesTickets>>,
    certificates: &[Arc<Certificate>],
    http: bool,
    clients: Option<&ClientCheck>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(spoken.versions())
        .map_err(|e| e.to_string())?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(check) => builder.with_client_cert_verifier(verifier(provider, check)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Shown(certificates.to_vec())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A session is not taken up again where clients are checked: each connection shows its certificate.
    match tickets.filter(|_| clients.is_none()) {
        Some(tickets) => config.ticketer = tickets,
        None => config.send_tls13_tickets = 0,
    }
    if http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(config)
}

fn verifier(provider: &Arc<CryptoProvider>, check: &ClientCheck) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if check.asks == Asks::Never {
        return Ok(Arc::new(Anybody(Arc::clone(provider))));
    }
    let roots = Arc::new(Authorities::roots(&check.trusted));
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = if check.asks == Asks::IfShown { builder.allow_unauthenticated() } else { builder };
    let built = builder.build().map_err(|e| e.to_string())?;
    Ok(match check.depth {
        Some(depth) => Arc::new(Shallow { inner: built, depth }),
        None => built,
    })
}

/// Bounds how long a client's chain is.
#[derive(Debug)]
struct Shallow {
    inner: Arc<dyn ClientCertVerifier>,
    depth: usize,
}

impl ClientCertVerifier for Shallow {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if between(intermediates) > self.depth {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// How many stand between a certificate and its authority, which may come along itself.
pub(super) fn between(intermediates: &[CertificateDer<'_>]) -> usize {
    intermediates.iter().filter(|one| !is_its_own(one)).count()
}

fn is_its_own(certificate: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}

/// The certificate of the name asked for, else the first.
#[derive(Debug)]
struct Shown(Vec<Arc<Certificate>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        Some(Arc::clone(&Certificate::of(&name, &self.0)?.key))
    }
}

/// Lets everybody in (AllowInsecureFallback); whoever shows a certificate must still have its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    atoll_reach::judge_signatures!(0);
}
