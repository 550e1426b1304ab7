//! What this crate's tests share: a CA that issues identities, and pairs of connected TLS streams.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::identity::Identity;
use crate::revoke::Revocations;
use crate::role::Role;
use crate::tls::TlsIdentity;

pub(crate) const HUB: &str = "hub-1";

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), der: cert.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// Chain (with the CA at its end), key and CA as PEM; already expired when `days` is negative.
    #[expect(clippy::disallowed_methods, reason = "rustls checks validity against the wall clock")]
    pub(crate) fn issue_pem(&self, role: &Role, days: i64) -> (String, String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(role.uri(HUB).try_into().unwrap())];
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        params.not_before = (now - day * 30).into();
        params.not_after = match u32::try_from(days) {
            Ok(days) => (now + day * days).into(),
            Err(_) => (now - day).into(),
        };
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (format!("{}{}", leaf.pem(), self.pem), key.serialize_pem(), self.pem.clone())
    }

    pub(crate) fn issue(&self, role: &Role) -> Identity {
        let (chain, key, ca) = self.issue_pem(role, 7);
        Identity::from_pem(&chain, &key, &ca).unwrap()
    }

    pub(crate) fn tls(&self, role: &Role) -> TlsIdentity {
        TlsIdentity::new(self.issue(role), Revocations::none()).unwrap()
    }
}
