//! What the topology says of the hub's zones: as written, with their serial, and (for DNS servers alone) their keys.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kinds::{DnsEndpointRecord, ZoneSpec};

/// A zone of the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneFacts {
    /// As written.
    pub spec: ZoneSpec,
    /// The text of the zone file that the spec refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The zone's serial (RFC 1982), from the hub's generation.
    pub serial: u32,
}

impl ZoneFacts {
    /// The zone file, wherever it is.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref().or_else(|| self.spec.zone_file.as_ref()?.text.as_deref())
    }
}

/// The records of one DNSEndpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsFacts {
    /// As written.
    pub endpoints: Vec<DnsEndpointRecord>,
    /// The object's generation: one more at every change of it.
    pub revision: i64,
}

/// The keys of a zone. Never logged.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZoneKeys {
    /// TSIG keys by name.
    pub tsig: BTreeMap<String, TsigKey>,
    /// Signing keys, the oldest first.
    pub signing: Vec<SigningKey>,
}

/// A TSIG key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TsigKey {
    /// For example `hmac-sha256`.
    pub algorithm: String,
    /// Base64.
    pub secret: String,
}

/// A key that signs a zone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SigningKey {
    /// Which key of the zone it is.
    pub generation: u32,
    /// PKCS#8, base64.
    pub pkcs8: String,
}

impl fmt::Debug for ZoneKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signing: Vec<u32> = self.signing.iter().map(|key| key.generation).collect();
        f.debug_struct("ZoneKeys").field("tsig", &self.tsig.keys()).field("signing", &signing).finish()
    }
}
