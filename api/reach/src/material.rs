//! What TLS needs of an identity, derived once: the key that signs, the hub's CA as roots, and the check of clients under it.
//!
//! In: an [`Identity`]. Out: [`Material`], which handshakes read and never change.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use crate::error::IdentityError;
use crate::identity::Identity;

/// Everything derived from one identity, swapped whole.
pub(crate) struct Material {
    pub(crate) identity: Identity,
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl Material {
    /// Fails when the key can't sign for the certificate, or the CA is no certificate authority.
    pub(crate) fn new(identity: Identity, provider: &Arc<CryptoProvider>) -> Result<Self, IdentityError> {
        let bad_key = |e: rustls::Error| IdentityError::Key(e.to_string());
        let bad_ca = |e: String| IdentityError::Malformed("hub CA", e);
        let key =
            CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider).map_err(bad_key)?;
        let mut roots = RootCertStore::empty();
        for ca in &identity.ca {
            roots.add(ca.clone()).map_err(|e| bad_ca(e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .build()
            .map_err(|e| bad_ca(e.to_string()))?;
        Ok(Self { identity, key: Arc::new(key), roots, clients })
    }
}
