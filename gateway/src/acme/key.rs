//! Keys of certificates, and the requests that they sign. Source: RFC 2986.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};

use super::failure::Failure;
use super::settings::KeyType;

/// A new key, as PEM.
pub(super) fn generate(kind: KeyType) -> Result<String, Failure> {
    let kind = match kind {
        KeyType::P256 => &PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &PKCS_ECDSA_P384_SHA384,
    };
    let key = KeyPair::generate_for(kind).map_err(|error| Failure::Refused(format!("no key can be made: {error}")))?;
    Ok(key.serialize_pem())
}

/// The request for a certificate of these names, signed by this key.
pub(super) fn request(key_pem: &str, names: &BTreeSet<String>) -> Result<Vec<u8>, Failure> {
    let made = || {
        let key = KeyPair::from_pem(key_pem)?;
        let mut parameters = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        // The names are in the extension; a common name is one that CAs have to check once more.
        parameters.distinguished_name = DistinguishedName::new();
        Ok(parameters.serialize_request(&key)?.der().to_vec())
    };
    made().map_err(|error: rcgen::Error| Failure::Refused(format!("the request can't be made: {error}")))
}
