//! The hub's certificate authority: who is the hub, who is an agent, who is a site.
//!
//! In: a certificate request or a name, and the time. Out: certificates whose one URI says the role (`atoll://<hub>/cluster/<name>`).
//! The key is in Secret `atoll-system/atoll-hub-ca` and nowhere else. What a request asks for is ignored but for its key.

mod revoked;
mod sites;
mod store;

use atoll_reach::{Role, Serial, ca_pin};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
pub(crate) use revoked::Revoked;
pub(crate) use sites::keep_sites;

use crate::error::Error;

/// How long a leaf is valid; rotated at half.
pub(crate) const LEAF: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Members' clocks may be so far behind.
const SKEW: SignedDuration = SignedDuration::from_mins(10);
const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// A request longer than this is none.
const REQUEST_LEN_MAX: usize = 16 * 1024;

/// Signs what the hub vouches for.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_der: Vec<u8>,
    hub_id: String,
}

/// A certificate that was just made.
#[derive(Clone)]
pub(crate) struct Issued {
    /// Leaf first, then the CA.
    pub(crate) chain_pem: String,
    /// Its key, where we made it.
    pub(crate) key_pem: Option<String>,
    pub(crate) serial: Serial,
    /// End of validity.
    pub(crate) not_after: Timestamp,
}

/// What is wrong with a certificate request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("certificate request: longer than {REQUEST_LEN_MAX} bytes")]
    Length,
    #[error("certificate request: does not parse or its signature is wrong: {0}")]
    Malformed(String),
    #[error("certificate request: {0}")]
    Signing(String),
}

impl Authority {
    /// A new authority with its key as PEM, for a hub of this id.
    pub(crate) fn generate(hub_id: &str, now: Timestamp) -> Result<(Self, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("atoll hub {hub_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (at(now - SKEW), at(now + CA_LIFE));
        let ca = params.self_signed(&key)?;
        let key_pem = key.serialize_pem();
        let authority = Self {
            ca_pem: ca.pem(),
            ca_der: ca.der().to_vec(),
            issuer: Issuer::new(params, key),
            hub_id: hub_id.to_owned(),
        };
        Ok((authority, key_pem))
    }

    /// The authority as it was stored.
    pub(crate) fn from_pem(hub_id: &str, ca_pem: &str, key_pem: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| format!("tls.key: {e}"))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()).map_err(|e| format!("tls.crt: {e}"))?;
        let of_key = pem.parse_x509().map_err(|e| format!("tls.crt: {e}"))?;
        if of_key.public_key().subject_public_key.data != key.public_key_raw() {
            return Err("tls.key does not belong to tls.crt".into());
        }
        drop(of_key);
        let issuer = Issuer::from_ca_cert_pem(ca_pem, key).map_err(|e| format!("tls.crt: {e}"))?;
        Ok(Self { issuer, ca_pem: ca_pem.to_owned(), ca_der: pem.contents, hub_id: hub_id.to_owned() })
    }

    pub(crate) fn hub_id(&self) -> &str {
        &self.hub_id
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The pin that join tokens carry: SHA-256 of the CA certificate.
    pub(crate) fn pin(&self) -> [u8; 32] {
        ca_pin(&self.ca_der)
    }

    /// A certificate for the key of a request; everything else in the request is ignored.
    pub(crate) fn sign(&self, csr_pem: &str, role: &Role, now: Timestamp) -> Result<Issued, BadRequest> {
        if csr_pem.len() > REQUEST_LEN_MAX {
            return Err(BadRequest::Length);
        }
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| BadRequest::Malformed(e.to_string()))?;
        let (params, serial) = self.leaf(role, &[], now).map_err(BadRequest::Signing)?;
        let leaf =
            params.signed_by(&request.public_key, &self.issuer).map_err(|e| BadRequest::Signing(e.to_string()))?;
        Ok(self.issued(&leaf, None, serial, now))
    }

    /// A certificate with a new key, also for these host names and addresses.
    pub(crate) fn issue(&self, role: &Role, names: &[String], now: Timestamp) -> Result<Issued, Error> {
        let failed = |e: String| Error::Certificate(role.to_string(), e);
        let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
        let (params, serial) = self.leaf(role, names, now).map_err(failed)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(|e| failed(e.to_string()))?;
        Ok(self.issued(&leaf, Some(key.serialize_pem()), serial, now))
    }

    fn leaf(&self, role: &Role, names: &[String], now: Timestamp) -> Result<(CertificateParams, Serial), String> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(|e| e.to_string())?;
        let uri = role.uri(&self.hub_id);
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(|_| uri.clone())?));
        params.distinguished_name = named(&role.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Cluster(_) | Role::Names(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Hub | Role::Site(_) => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        let mut serial: [u8; 16] = rand::random();
        // RFC 5280 §4.1.2.2: positive, and here of full length.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        (params.not_before, params.not_after) = (at(now - SKEW), at(now + LEAF));
        Ok((params, Serial::from_bytes(&serial)))
    }

    fn issued(&self, leaf: &rcgen::Certificate, key_pem: Option<String>, serial: Serial, now: Timestamp) -> Issued {
        Issued { chain_pem: format!("{}{}", leaf.pem(), self.ca_pem), key_pem, serial, not_after: now + LEAF }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn at<T: From<std::time::SystemTime>>(time: Timestamp) -> T {
    std::time::SystemTime::from(time).into()
}

#[cfg(test)]
mod tests;
