//! Who a certificate speaks for: the role in its URI name, its serial and its lifetime.
//!
//! In: a DER certificate that the TLS layer has verified. Out: [`Peer`]. Never trusts a field of a message.
//! Source: SPIFFE's idea of one URI SAN per leaf; the form `atoll://<hub>/cluster/<name>` is our own.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::error::IdentityError;

/// What the bearer of a certificate may act as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// The hub itself.
    Hub,
    /// The agent of the member of this name.
    Cluster(String),
    /// A data plane replica (DNS or gateway) of this name.
    Site(String),
    /// The node-local DNS of the member of this name: follows what its pods' names need, and nothing else.
    Names(String),
}

impl Role {
    /// The URI that names this role under a hub.
    #[must_use]
    pub fn uri(&self, hub: &str) -> String {
        match self {
            Self::Hub => format!("atoll://{hub}/hub"),
            Self::Cluster(name) => format!("atoll://{hub}/cluster/{name}"),
            Self::Site(name) => format!("atoll://{hub}/site/{name}"),
            Self::Names(name) => format!("atoll://{hub}/names/{name}"),
        }
    }

    /// Parses a URI into the hub's id and the role; nothing if it is not one of ours.
    #[must_use]
    pub fn parse(uri: &str) -> Option<(String, Self)> {
        let (hub, path) = uri.strip_prefix("atoll://")?.split_once('/')?;
        let role = match path.split_once('/') {
            None if path == "hub" => Self::Hub,
            Some(("cluster", name)) if is_name(name) => Self::Cluster(name.to_owned()),
            Some(("site", name)) if is_name(name) => Self::Site(name.to_owned()),
            Some(("names", name)) if is_name(name) => Self::Names(name.to_owned()),
            _ => return None,
        };
        is_name(hub).then(|| (hub.to_owned(), role))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("hub"),
            Self::Cluster(name) => write!(f, "cluster `{name}`"),
            Self::Site(name) => write!(f, "site `{name}`"),
            Self::Names(name) => write!(f, "node-local DNS of cluster `{name}`"),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// A certificate's serial number: lower-case hexadecimal without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(String);

impl Serial {
    /// From the serial's bytes, most significant first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Self::from_hex(&hex)
    }

    /// From hexadecimal text, in any case, with or without leading zeros.
    #[must_use]
    pub fn from_hex(hex: &str) -> Self {
        let trimmed = hex.trim_start_matches('0').to_ascii_lowercase();
        Self(if trimmed.is_empty() { "0".to_owned() } else { trimmed })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bearer of a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The hub that issued it.
    pub hub: String,
    /// What it may act as.
    pub role: Role,
    /// Its certificate's serial.
    pub serial: Serial,
    /// When the certificate starts to count.
    pub not_before: SystemTime,
    /// When it ceases to.
    pub not_after: SystemTime,
}

impl Peer {
    /// Reads the bearer out of a leaf certificate. Verifies nothing: that is TLS's work.
    ///
    /// # Errors
    /// When it is not a certificate, or bears not exactly one of our URIs. A retry doesn't help.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, cert) =
            X509Certificate::from_der(der).map_err(|e| IdentityError::Malformed("certificate", e.to_string()))?;
        let uris: Vec<&str> = cert
            .extensions()
            .iter()
            .filter_map(|ext| match ext.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => Some(san),
                _ => None,
            })
            .flat_map(|san| &san.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with("atoll://") => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris.as_slice() else { return Err(IdentityError::NoRole(uris.join(", "))) };
        let (hub, role) = Role::parse(uri).ok_or_else(|| IdentityError::NoRole((*uri).to_owned()))?;
        let validity = cert.validity();
        Ok(Self {
            hub,
            role,
            serial: Serial::from_bytes(cert.raw_serial()),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }

    /// When half of the certificate's life is over: time to ask for the next one.
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO);
        self.not_before + life / 2
    }
}

fn at(unix_s: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_s).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_uris_name_a_role() {
        for (uri, want) in [
            ("atoll://h1/hub", Some(Role::Hub)),
            ("atoll://h1/cluster/prod-eu", Some(Role::Cluster("prod-eu".into()))),
            ("atoll://h1/site/dns-0.a", Some(Role::Site("dns-0.a".into()))),
            ("atoll://h1/names/prod-eu", Some(Role::Names("prod-eu".into()))),
            ("atoll://h1/names/", None),
            ("atoll://h1/cluster/", None),
            ("atoll://h1/cluster/a/b", None),
            ("atoll://h1/cluster/a b", None),
            ("atoll:///hub", None),
            ("atoll://h1/hub/x", None),
            ("spiffe://h1/hub", None),
            ("atoll://h1/admin", None),
        ] {
            assert_eq!(Role::parse(uri).map(|(_, role)| role), want, "{uri}");
            if let Some(role) = want {
                assert_eq!(role.uri("h1"), uri);
            }
        }
    }

    #[test]
    fn a_serial_reads_alike_from_bytes_and_text() {
        assert_eq!(Serial::from_bytes(&[0, 0x0a, 0xff]), Serial::from_hex("00AFF"));
        assert_eq!(Serial::from_hex("000").as_str(), "0");
    }
}
