//! The certificate of the measurement, and whom the generator trusts.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::Result;

/// The host that the certificate is for.
pub(crate) const HOST: &str = "h0.test";

/// Writes `cert.pem`, `key.pem` and both as `both.pem`.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    std::fs::write(folder.join("cert.pem"), &certificate)?;
    std::fs::write(folder.join("key.pem"), &key)?;
    Ok(std::fs::write(folder.join("both.pem"), certificate + &key)?)
}

/// A client that trusts that certificate alone.
pub(crate) fn client(folder: &Path, resume: bool) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem"))?)?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    if !resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}
