//! TLS for queries: whatever certificate is in use now, nobody's asked for.
//!
//! In: a connected client, the protocol names that fit. Out: the same client behind TLS 1.3 or 1.2 (RFC 7858 §3.2). A client that offers
//! other protocols is refused (RFC 9325 §3.8); one that offers none is served. Never takes data before the handshake's end, which could be
//! replayed.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::listen::Client;
use crate::edge::Edge;

/// How a transport answers; `None` without a certificate to show.
pub(crate) fn config(edge: &Edge, alpn: &[&[u8]], quic: bool) -> Option<Arc<ServerConfig>> {
    let certificate = Arc::clone(edge.certificate.as_ref()?);
    let default = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(default);
    let versions: &[_] = if quic { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider has both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Some(Arc::new(config))
}

/// The client behind TLS.
///
/// # Errors
/// A handshake that fails or takes too long.
pub(crate) async fn secure(mut client: Client, config: Arc<ServerConfig>) -> io::Result<Client> {
    let max = client.responder.edge.limits.handshake;
    let shaken = timeout(max, TlsAcceptor::from(config).accept(client.stream)).await;
    let tls = shaken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))??;
    client.stream = Box::new(tls);
    Ok(client)
}
