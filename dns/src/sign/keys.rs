//! The keys of a zone: one for everything (CSK), two while they roll. Pure but for the signatures themselves.
//!
//! In: PKCS#8 as the hub keeps it. Out: DNSKEY, CDS and CDNSKEY for the zone, DS for the zone above, signatures. Sources: RFC 6605
//! (algorithm 13), RFC 7344 (CDS and CDNSKEY name the newest key, so that the parent changes over to it), RFC 4509 (DS by SHA-256).

use std::fmt;

use atoll_api::topology::SigningKey as Held;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{CDNSKEY, CDS, DNSKEY, DNSSECRData, DS};
use hickory_proto::dnssec::{Algorithm, DigestType, SigningKey as _, TBS};
use hickory_proto::rr::{Name, RData, Record};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// How long the keys may be kept: a roll waits for it.
const TTL: u32 = 3600;

/// One key.
struct Key {
    pair: EcdsaSigningKey,
    dnskey: DNSKEY,
    tag: u16,
}

/// The keys of a zone, the newest last.
pub(crate) struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tags()).finish()
    }
}

impl Keys {
    /// Out of what the hub keeps.
    ///
    /// # Errors
    /// When there is none, or one can't be read.
    pub(crate) fn new(held: &[Held]) -> Result<Self, String> {
        let keys: Result<Vec<Key>, String> = held.iter().map(Key::new).collect();
        let keys = keys?;
        if keys.is_empty() {
            Err("its signing key is not there yet: it is not signed".to_owned())
        } else {
            Ok(Self(keys))
        }
    }

    /// The keys' tags.
    pub(crate) fn tags(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|key| key.tag)
    }

    /// Signs by every key: tag and signature.
    pub(super) fn sign(&self, tbs: impl Fn(u16) -> TBS) -> impl Iterator<Item = (u16, Vec<u8>)> {
        self.0.iter().filter_map(move |key| Some((key.tag, key.pair.sign(&tbs(key.tag)).ok()?)))
    }

    /// What stands at the apex.
    pub(crate) fn records(&self, apex: &Name) -> Vec<Record> {
        let record = |data: DNSSECRData| Record::from_rdata(apex.clone(), TTL, RData::DNSSEC(data));
        let mut records: Vec<Record> = self.0.iter().map(|k| record(DNSSECRData::DNSKEY(k.dnskey.clone()))).collect();
        if let Some(newest) = self.0.last() {
            let public = newest.dnskey.public_key();
            let (flags, algorithm) = (newest.dnskey.flags(), Some(Algorithm::ECDSAP256SHA256));
            let octets = hickory_proto::dnssec::PublicKey::public_bytes(public).to_vec();
            records.push(record(DNSSECRData::CDNSKEY(CDNSKEY::with_flags(flags, algorithm, octets))));
            if let Some(digest) = newest.digest(apex) {
                let cds = CDS::new(newest.tag, algorithm, DigestType::SHA256, digest);
                records.push(record(DNSSECRData::CDS(cds)));
            }
        }
        records
    }

    /// What the zone above says of the zone: every key that signs.
    pub(crate) fn ds(&self, apex: &Name) -> Vec<Record> {
        let ds = |key: &Key| {
            let data = DS::new(key.tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, key.digest(apex)?);
            Some(Record::from_rdata(apex.clone(), TTL, RData::DNSSEC(DNSSECRData::DS(data))))
        };
        self.0.iter().filter_map(ds).collect()
    }
}

impl Key {
    fn new(held: &Held) -> Result<Self, String> {
        let bad = |why: String| format!("signing key of generation {}: {why}", held.generation);
        let der = decode(&held.pkcs8).ok_or_else(|| bad("not base64".to_owned()))?;
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = EcdsaSigningKey::from_pkcs8(&der, Algorithm::ECDSAP256SHA256).map_err(|e| bad(e.to_string()))?;
        let public = pair.to_public_key().map_err(|e| bad(e.to_string()))?;
        // RFC 4034 §2.1.1: ZONE and SEP.
        let dnskey = DNSKEY::with_flags(257, public);
        let tag = dnskey.calculate_key_tag().map_err(|e| bad(e.to_string()))?;
        Ok(Self { pair, dnskey, tag })
    }

    fn digest(&self, apex: &Name) -> Option<Vec<u8>> {
        self.dnskey.to_digest(apex, DigestType::SHA256).ok().map(|digest| digest.as_ref().to_vec())
    }
}

/// Base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}
