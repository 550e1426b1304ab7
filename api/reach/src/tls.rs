//! Mutual TLS with an identity that may be swapped while connections live.
//!
//! In: an [`Identity`], the revocation list, a stream. Out: rustls configurations, and secured streams with the peer's
//! role. Never resumes a session: a resumed one would skip the checks of a certificate revoked in between.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme, version::TLS13};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::IdentityError;
use crate::identity::Identity;
use crate::material::Material;
use crate::revoke::Revocations;
use crate::role::Peer;
use crate::stream::BoxStream;
use crate::verify::{Expect, Pinned, Verifier};

/// A handshake that takes longer is given up: a peer that says nothing must not hold a connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no handshake.
    Required,
    /// A certificate is checked if shown; without one the peer is nobody (enrolment).
    Optional,
    /// None is asked for: the peer is nobody (an API server that calls a webhook).
    None,
}

/// A stream after its handshake.
pub struct Secured {
    /// Cut once the peer's certificate is revoked.
    pub stream: BoxStream,
    /// Who is at the other end; nobody if client certificates are optional and none was shown.
    pub peer: Option<Peer>,
    /// The protocol agreed on.
    pub alpn: Option<Vec<u8>>,
}

/// An identity in use: swap it and new handshakes show the new certificate, while live connections go on.
#[derive(Clone)]
pub struct TlsIdentity {
    material: Arc<ArcSwap<Material>>,
    revocations: Revocations,
    provider: Arc<CryptoProvider>,
}

impl TlsIdentity {
    /// Puts an identity to use, checked against one revocation list.
    ///
    /// # Errors
    /// When the key can't sign for the certificate or the CA is no certificate authority.
    pub fn new(identity: Identity, revocations: Revocations) -> Result<Self, IdentityError> {
        let provider = provider();
        let material = Material::new(identity, &provider)?;
        Ok(Self { material: Arc::new(ArcSwap::from_pointee(material)), revocations, provider })
    }

    /// Shows another identity from now on. Configurations handed out before follow.
    ///
    /// # Errors
    /// As [`TlsIdentity::new`]; the old identity stays then.
    pub fn swap(&self, identity: Identity) -> Result<(), IdentityError> {
        self.material.store(Arc::new(Material::new(identity, &self.provider)?));
        Ok(())
    }

    /// The bearer of the identity shown now.
    #[must_use]
    pub fn bearer(&self) -> Peer {
        self.material.load().identity.bearer().clone()
    }

    /// The certificate shown now, for servers that show it beside us.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.material.load().key)
    }

    /// The list that peers are checked against.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// How to dial as this identity. TLS 1.3 only.
    #[must_use]
    pub fn client(&self, expect: Expect, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(Some(expect), false)))
            .with_client_cert_resolver(Arc::new(Shown(Arc::clone(&self.material))));
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// How to answer as this identity. TLS 1.3 only.
    #[must_use]
    pub fn server(&self, clients: ClientAuth, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3");
        let builder = match clients {
            ClientAuth::None => builder.with_no_client_auth(),
            asked => builder.with_client_cert_verifier(Arc::new(self.verifier(None, asked == ClientAuth::Required))),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(Arc::clone(&self.material))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// Secures a stream that we opened. `host` only fills the SNI; who answers is decided by `expect`.
    ///
    /// # Errors
    /// When the handshake fails, takes longer than 10 s, or the peer isn't whom we expect.
    pub async fn connect(&self, stream: BoxStream, host: &str, expect: Expect, alpn: &[&[u8]]) -> io::Result<Secured> {
        let connector = TlsConnector::from(self.client(expect, alpn));
        let tls = within(connector.connect(server_name(host), stream)).await?;
        let (_, connection) = tls.get_ref();
        let peer = peer_of(connection.peer_certificates())?;
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(self.secured(Box::new(tls), peer, alpn))
    }

    /// Secures a stream that was opened to us, with a configuration of [`TlsIdentity::server`].
    ///
    /// # Errors
    /// When the handshake fails or takes longer than 10 s.
    pub async fn accept(&self, config: Arc<ServerConfig>, stream: BoxStream) -> io::Result<Secured> {
        let tls = within(TlsAcceptor::from(config).accept(stream)).await?;
        let (_, connection) = tls.get_ref();
        let peer = peer_of(connection.peer_certificates())?;
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(self.secured(Box::new(tls), peer, alpn))
    }

    fn secured(&self, stream: BoxStream, peer: Option<Peer>, alpn: Option<Vec<u8>>) -> Secured {
        let stream = match &peer {
            Some(peer) => Box::new(self.revocations.guard(stream, peer.serial.clone())),
            None => stream,
        };
        Secured { stream, peer, alpn }
    }

    fn verifier(&self, expect: Option<Expect>, client_cert_required: bool) -> Verifier {
        Verifier {
            material: Arc::clone(&self.material),
            revocations: self.revocations.clone(),
            provider: Arc::clone(&self.provider),
            expect,
            client_cert_required,
        }
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("bearer", &self.bearer()).finish_non_exhaustive()
    }
}

/// How a joining agent dials the hub before it has an identity: whoever answers must be the hub, under a CA with this
/// hash. See [`crate::ca_pin`].
#[must_use]
pub fn pinned(pin: [u8; 32], alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

async fn within<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE_MAX, handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))?
}

fn peer_of(chain: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> io::Result<Option<Peer>> {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Ok(None) };
    Peer::from_der(leaf).map(Some).map_err(|e| io::Error::new(io::ErrorKind::PermissionDenied, e))
}

fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::try_from("hub.invalid").expect("a constant DNS name"))
}

/// Shows whatever certificate is in use now.
struct Shown(Arc<ArcSwap<Material>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
