//! Certificates of listeners: parsed once, chosen by server name, swapped with the table and without a restart.
//!
//! In: Secrets of type kubernetes.io/tls. Out: certificates, and the resolver that TLS handshakes ask. A new certificate that can't be used
//! does not replace the one before. Never reads a file.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::plane::Snapshots;
use crate::table::{Host, Slot};

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// Its names.
    names: Vec<Host>,
    /// End of validity, seconds since 1970.
    pub(crate) not_after: i64,
}

impl Certificate {
    fn parse(secret: &Secret) -> Result<Self, String> {
        let data = secret.data.as_ref();
        let part =
            |key: &str| data.and_then(|d| d.get(key)).map(|b| b.0.as_slice()).ok_or_else(|| format!("has no `{key}`"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(part("tls.crt")?)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("tls.crt: {e}"))?;
        let first = chain.first().ok_or("tls.crt: holds no certificate")?;
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
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|e| format!("key and certificate: {e}"))?;
        Ok(Self { key: Arc::new(key), names, not_after })
    }
}

/// What became of a Secret, and its last certificate that could be used.
struct Known {
    data: Secret,
    now: Result<Arc<Certificate>, String>,
    good: Option<Arc<Certificate>>,
}

/// Certificates parsed so far, by namespace and name of their Secret.
#[derive(Default)]
pub(crate) struct Certificates {
    known: HashMap<(Option<String>, String), Known>,
}

impl Certificates {
    /// The certificate in a Secret.
    ///
    /// # Errors
    /// What is wrong with it, and the one before if there is one.
    pub(crate) fn load(&mut self, secret: &Secret) -> Result<Arc<Certificate>, (String, Option<Arc<Certificate>>)> {
        let at = (secret.namespace(), secret.name_any());
        let fresh = self.known.get(&at).is_some_and(|k| k.data.data == secret.data);
        if !fresh {
            let now = Certificate::parse(secret).map(Arc::new);
            let good = now.as_ref().ok().cloned().or_else(|| self.known.remove(&at).and_then(|k| k.good));
            self.known.insert(at.clone(), Known { data: secret.clone(), now, good });
        }
        let known = &self.known[&at];
        known.now.clone().map_err(|why| (why, known.good.clone()))
    }

    /// Forgets Secrets that are gone.
    pub(crate) fn retain(&mut self, secrets: &[Arc<Secret>]) {
        let there: std::collections::HashSet<_> = secrets.iter().map(|s| (s.namespace(), s.name_any())).collect();
        self.known.retain(|at, _| there.contains(at));
    }
}

/// Chooses certificates by the table as it is when a client says hello.
struct Resolver {
    snapshots: Snapshots,
    slot: Slot,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.slot).finish()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let snapshot = self.snapshots.load();
        let listener = snapshot.as_ref()?.table.listener(self.slot, &name)?;
        let named = listener.certificates.iter().find(|c| c.names.iter().any(|n| n.covers(&name)));
        Some(Arc::clone(&named.or(listener.certificates.first())?.key))
    }
}

/// How TLS is spoken at a slot.
///
/// # Errors
/// The provider has none of the protocol versions, a bug.
pub(crate) fn server(snapshots: Snapshots, slot: Slot) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { snapshots, slot }));
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
