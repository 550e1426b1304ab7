//! The certificate that every server of a run shows, ours and peers', and who takes it.
//!
//! In: a folder. Out: two files in it for the peers; the same as our server and our generator want them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use crate::Result;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Writes a certificate for `localhost` and its key into `folder`.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(folder.join(CERTIFICATE), made.cert.pem())?;
    Ok(fs::write(folder.join(KEY), made.signing_key.serialize_pem())?)
}

/// What our server shows.
pub(crate) fn shown(folder: &Path) -> Result<Arc<dyn ResolvesServerCert>> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY))?;
    Ok(Arc::new(Shown(Arc::new(CertifiedKey::from_der(vec![certificate(folder)?], key, &provider)?))))
}

/// A client that takes it.
pub(crate) fn client(folder: &Path, alpn: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(folder)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Ok(config)
}

fn certificate(folder: &Path) -> Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_file(folder.join(CERTIFICATE))?)
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
