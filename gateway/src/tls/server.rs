//! TLS towards clients: which certificate a listener shows, and whether clients must show one of theirs (GEP-91).

use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::{Authorities, Certificate};

/// How certificates of clients are checked.
#[derive(Debug, Clone)]
pub(crate) struct ClientCheck {
    pub(crate) trusted: Vec<Arc<Authorities>>,
    /// One that is missing or not trusted is let in all the same.
    pub(crate) optional: bool,
}

/// What makes settings other ones.
pub(super) fn key(certificates: &[Arc<Certificate>], http: bool, clients: Option<&ClientCheck>) -> String {
    let ids: Vec<&str> = certificates.iter().map(|c| c.id.as_str()).collect();
    let trusted = clients.map(|c| (c.optional, c.trusted.iter().map(|a| a.id.as_str()).collect::<Vec<_>>()));
    format!("{http} {} {trusted:?}", ids.join(" "))
}

pub(super) fn make(
    provider: &Arc<CryptoProvider>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    certificates: &[Arc<Certificate>],
    http: bool,
    clients: Option<&ClientCheck>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
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
    if check.optional {
        return Ok(Arc::new(Anybody(Arc::clone(provider))));
    }
    let roots = Arc::new(Authorities::roots(&check.trusted));
    let built = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    built.map_err(|e| e.to_string())
}

/// The certificate of the name asked for, else the first.
#[derive(Debug)]
struct Shown(Vec<Arc<Certificate>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let named = self.0.iter().find(|c| c.covers(&name));
        Some(Arc::clone(&named.or(self.0.first())?.key))
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
