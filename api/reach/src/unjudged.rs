//! Servers that nobody vouches for: a certificate is taken whoever signed it, where somebody decided so.
//!
//! In: a server's certificate. Out: that it holds its key; nothing more. For registries written as `insecure`, and for health checks, which
//! ask only whether somebody serves. Never for anything of the federation's own: there it is [`crate::TlsIdentity`] who judges.

use std::sync::Arc;

use rustls::Error;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// Takes any certificate whose holder signs with it.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    crate::judge_signatures!(0);
}
