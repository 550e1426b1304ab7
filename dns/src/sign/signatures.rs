//! Signatures, made once and kept: a name that is asked often costs no more signed than unsigned.
//!
//! In: a set of records of a signed zone, the time. Out: its RRSIGs, one for each key. They are kept by what they sign, so a change of the
//! set is another signature; the number kept is bounded. A signature holds for eight days and is given for one: every set changes over
//! at its own time of day (jitter), the same on all replicas. Sources: RFC 4034 §3 and §6, RFC 6781 §4.4.2.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hickory_proto::dnssec::rdata::{DNSSECRData, RRSIG, SigInput};
use hickory_proto::dnssec::{Algorithm, TBS};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding};
use moka::sync::Cache;

use crate::zones::Zone;

/// Signatures kept; one takes some 300 octets.
const KEPT_MAX: u64 = 100_000;
const DAY: u32 = 86_400;
/// From the day's beginning; RFC 6781 §4.4.2 wants it well above the largest TTL.
const VALID: u32 = 8 * DAY;
/// Clocks of validators that are behind.
const BEFORE: u32 = 3600;

/// What is signed, by digest: zone, owner, type, TTL, data, keys, day.
type Subject = (u64, u64);

/// The signatures that were made.
pub(crate) struct Signatures {
    kept: Cache<Subject, Vec<Record>>,
}

impl Default for Signatures {
    fn default() -> Self {
        Self { kept: Cache::new(KEPT_MAX) }
    }
}

impl Signatures {
    /// The signatures of `set`, records of one name and type, by the keys of `zone`.
    pub(crate) fn of(&self, zone: &Zone, set: &[Record], now_s: u32) -> Vec<Record> {
        let (Some(keys), Some(first)) = (zone.keys(), set.first()) else { return Vec::new() };
        let Some(mut data) = set.iter().map(canonical).collect::<Option<Vec<_>>>() else { return Vec::new() };
        // RFC 4034 §6.3: in the order of their canonical form, none twice.
        data.sort_unstable();
        data.dedup();
        let ttl = set.iter().map(|r| r.ttl).min().unwrap_or(0);
        // RFC 4034 §3.1.4: "the TTL of the covered RRset as it appears in the authoritative zone", for what stands there.
        let kind = first.record_type();
        let written = || zone.set(&first.name, kind).is_some_and(|set| set.first().is_some_and(|r| r.ttl == ttl));
        let original = if kind == RecordType::NSEC || written() { ttl } else { whole(ttl) };
        let start = day(&first.name, now_s);
        let subject = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, zone.apex(), &first.name, first.record_type(), original, &data, start).hash(&mut hasher);
            keys.tags().for_each(|tag| tag.hash(&mut hasher));
            hasher.finish()
        };
        let made = self.kept.get_with((subject(0), subject(1)), || {
            let input = |tag| SigInput {
                type_covered: first.record_type(),
                algorithm: Algorithm::ECDSAP256SHA256,
                num_labels: first.name.num_labels(),
                original_ttl: original,
                sig_expiration: SerialNumber::new(start.wrapping_add(VALID)),
                sig_inception: SerialNumber::new(start.wrapping_sub(BEFORE)),
                key_tag: tag,
                signer_name: zone.apex().clone(),
            };
            let signed = keys.sign(|tag| to_be_signed(&input(tag), &first.name, &data));
            let record = |(tag, octets)| {
                let data = DNSSECRData::RRSIG(RRSIG::from_sig(input(tag), octets));
                Record::from_rdata(first.name.clone(), original, RData::DNSSEC(data))
            };
            signed.map(record).collect()
        });
        let aged = |mut record: Record| {
            record.ttl = ttl;
            record
        };
        made.into_iter().map(aged).collect()
    }
}

/// The TTL that is signed of what is decided when it is asked for: that of answers which age is one of a few, so that they share
/// signatures (RFC 4035 §5.3.3 allows less).
fn whole(ttl: u32) -> u32 {
    [5, 30, 60, 300, 900, 3600, DAY].into_iter().find(|step| ttl <= *step).unwrap_or(ttl)
}

/// When the signatures that are given now begin: once a day, at a time that goes by the name.
fn day(name: &Name, now_s: u32) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let jitter = (hasher.finish() % u64::from(DAY)) as u32;
    let into = now_s.wrapping_add(jitter) % DAY;
    now_s.wrapping_sub(into)
}

/// RFC 4034 §6.2: data in its canonical form.
fn canonical(record: &Record) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_canonical_form(true);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    record.data.emit(&mut encoder).ok()?;
    Some(octets)
}

/// RFC 4034 §3.1.8.1.
fn to_be_signed(input: &SigInput, owner: &Name, data: &[Vec<u8>]) -> TBS {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_canonical_form(true);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    // Names are at most 255 octets and the data came out of records: writing into memory can't fail.
    let _ = input.emit(&mut encoder);
    let mut name = Vec::new();
    let mut encoder = BinEncoder::new(&mut name);
    encoder.set_name_encoding(NameEncoding::UncompressedLowercase);
    let _ = owner.emit(&mut encoder);
    for data in data {
        octets.extend_from_slice(&name);
        octets.extend_from_slice(&u16::from(input.type_covered).to_be_bytes());
        octets.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
        octets.extend_from_slice(&input.original_ttl.to_be_bytes());
        octets.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        octets.extend_from_slice(data);
    }
    TBS::from(octets.as_slice())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::absolute;

    /// The same record in a zone and in the zone below it, with one key for both.
    #[test]
    fn a_signature_is_by_the_zone_that_signs_whatever_was_kept_of_another() {
        let pkcs8 = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOc6ZzG82zAD9iSWy8WzMGFTUybjQEhHVHS4GzN+0FvChRANCAASdItnc3Dw1YEUDQND9TooLHbLclMamEyUMCj2FeU2xfCQPFe4FuITjJS68MdZA0HYHJESLV6+jVoHkd3/pjXJW";
        let mut topology = atoll_api::topology::Topology::default();
        topology.settings.apex = "atoll.internal".into();
        for apex in ["example.net", "sub.example.net"] {
            let zone = serde_json::json!({"serial": 1, "spec": {"apex": apex, "dnssec": {"enabled": true}}});
            let keys = serde_json::json!({"signing": [{"generation": 1, "pkcs8": pkcs8}]});
            topology.zones.insert(apex.into(), Arc::new(serde_json::from_value(zone).unwrap()));
            topology.keys.insert(apex.into(), Arc::new(serde_json::from_value(keys).unwrap()));
        }
        let (config, geo) = (crate::config::Config::default(), crate::geo::Geo::default());
        let table = crate::table::Table::new(&Arc::new(topology), &config, &geo);
        let owner = absolute("www.sub.example.net").unwrap();
        let set = [atoll_api::records::record(owner, "A", 60, "192.0.2.1").unwrap()];
        let signatures = Signatures::default();
        for apex in ["example.net", "sub.example.net"] {
            let apex = absolute(apex).unwrap();
            let signed = signatures.of(table.zone_of(&apex).unwrap(), &set, 1_800_000_000);
            let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &signed[0].data else { panic!("{signed:?}") };
            assert_eq!(signature.input().signer_name, apex);
        }
    }
}
