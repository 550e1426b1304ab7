//! An identity: certificate chain, key and the hub's CA.
//!
//! In: PEM. Out: [`Identity`], parsed once and for all. Never writes anything and never shows the key.

use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::error::IdentityError;
use crate::role::{Peer, Role};

/// A certificate chain with its key, and the hub's CA that both sides trust.
pub struct Identity {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) ca: Vec<CertificateDer<'static>>,
    bearer: Peer,
}

impl Identity {
    /// Parses an identity from PEM: the chain with the leaf first, its key, the hub's CA certificates.
    ///
    /// # Errors
    /// When a part is missing or doesn't parse, or when the leaf names no role.
    pub fn from_pem(chain: &str, key: &str, ca: &str) -> Result<Self, IdentityError> {
        let chain = certificates("certificate chain", chain)?;
        let ca = certificates("hub CA", ca)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| match e {
            rustls::pki_types::pem::Error::NoItemsFound => IdentityError::Missing("private key"),
            other => IdentityError::Malformed("private key", other.to_string()),
        })?;
        let bearer = Peer::from_der(&chain[0])?;
        Ok(Self { chain, key, ca, bearer })
    }

    /// What this identity says of its bearer: hub, role, serial, lifetime.
    #[must_use]
    pub fn bearer(&self) -> &Peer {
        &self.bearer
    }

    /// What its bearer may act as.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.bearer.role
    }

    /// When to ask for the next certificate.
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        self.bearer.half_life()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("bearer", &self.bearer).finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), ca: self.ca.clone(), bearer: self.bearer.clone() }
    }
}

/// The pin of a hub CA that a join token carries: SHA-256 over the DER certificate.
#[must_use]
pub fn ca_pin(ca_der: &[u8]) -> [u8; 32] {
    Sha256::digest(ca_der).into()
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| IdentityError::Malformed(what, e.to_string()))?;
    if found.is_empty() { Err(IdentityError::Missing(what)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;

    #[test]
    fn an_identity_knows_its_role_and_half_life() {
        let issued = Ca::new().issue_pem(&Role::Cluster("prod-eu".into()), 7);
        let identity = Identity::from_pem(&issued.0, &issued.1, &issued.2).unwrap();
        assert_eq!(identity.role(), &Role::Cluster("prod-eu".into()));
        let bearer = identity.bearer();
        assert!(bearer.not_before < identity.half_life() && identity.half_life() < bearer.not_after);
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_broken_identity_is_refused_with_the_part_that_is_broken() {
        let (chain, key, ca) = Ca::new().issue_pem(&Role::Hub, 7);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, parts, part) in [
            ("no chain", ("", key.as_str(), ca.as_str()), "certificate chain"),
            ("no key", (chain.as_str(), "", ca.as_str()), "private key"),
            ("no CA", (chain.as_str(), key.as_str(), "x"), "hub CA"),
            ("garbage leaf", (garbage, key.as_str(), ca.as_str()), "certificate"),
            ("a CA as leaf", (ca.as_str(), key.as_str(), ca.as_str()), "role"),
        ] {
            let error = Identity::from_pem(parts.0, parts.1, parts.2).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}
