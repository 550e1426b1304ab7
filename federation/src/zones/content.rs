//! What DNS servers are told of the zones, each with a serial that grows whenever its content is another.
//!
//! In: objects, sites, the serial of the next generation. Out: [`Entry`]s. A zone's content is its object, its file, its keys, the
//! DNSEndpoints' records in it, the servers' addresses; a signed zone is another one every two days, so that secondaries fetch fresh
//! signatures. Digests of DNSEndpoints are kept, so that a pass costs what has changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use atoll_api::kinds::{DNSEndpoint, Zone};
use atoll_api::topology::{Site, ZoneKeys};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::{keys, plain, served};
use crate::objects::Objects;

/// Signatures last a week; secondaries get new ones every second day.
pub(crate) const RESIGN_S: i64 = 2 * 86_400;

/// One zone as DNS servers are told.
pub(crate) struct Entry {
    pub(crate) zone: Arc<Zone>,
    pub(crate) file: Option<String>,
    pub(crate) serial: u32,
    pub(crate) keys: ZoneKeys,
}

type Hash = [u8; 32];

/// A DNSEndpoint as it was last seen: its version, and a digest for each zone that it has records in.
struct Seen {
    version: Option<String>,
    zones: BTreeMap<String, Hash>,
}

/// What is remembered from pass to pass.
#[derive(Default)]
pub(crate) struct Known {
    serials: HashMap<String, (Hash, u32)>,
    records: HashMap<String, Seen>,
    apexes: Vec<String>,
}

impl Known {
    /// The zones as they are now; those whose content is another get `next` as their serial.
    pub(crate) fn entries(&mut self, objects: &Objects, sites: &[Site], next: u32, now_s: i64) -> Vec<Entry> {
        let zones = served(objects);
        let apexes: Vec<String> = zones.iter().map(|z| plain(&z.spec.apex)).collect();
        if apexes != self.apexes {
            self.records.clear();
            self.apexes.clone_from(&apexes);
        }
        self.look(&objects.records.state());
        let entries: Vec<Entry> = zones
            .into_iter()
            .map(|zone| {
                let file = zone.spec.zone_file.as_ref().and_then(|f| f.config_map_ref.as_ref());
                let file = file.and_then(|_| super::file(objects, &zone).ok().flatten());
                let keys = keys::of(objects, &zone).0;
                let digest = self.digest(&zone, file.as_deref(), &keys, sites, now_s);
                let serial = self.serial(&zone.name_any(), digest, next);
                Entry { zone, file, serial, keys }
            })
            .collect();
        self.serials.retain(|name, _| entries.iter().any(|e| e.zone.name_any() == *name));
        entries
    }

    fn serial(&mut self, name: &str, digest: Hash, next: u32) -> u32 {
        match self.serials.get(name) {
            Some((held, serial)) if *held == digest => *serial,
            _ => {
                self.serials.insert(name.to_owned(), (digest, next));
                next
            }
        }
    }

    /// Takes the digests of what is new.
    fn look(&mut self, records: &[Arc<DNSEndpoint>]) {
        let name = |r: &DNSEndpoint| format!("{}/{}", r.namespace().unwrap_or_default(), r.name_any());
        let mut held = std::mem::take(&mut self.records);
        for object in records {
            let (name, version) = (name(object), object.resource_version());
            let same = held.remove(&name).filter(|seen| seen.version == version && version.is_some());
            let seen = same.unwrap_or_else(|| Seen { version, zones: digests(&self.apexes, object) });
            self.records.insert(name, seen);
        }
    }

    fn digest(&self, zone: &Zone, file: Option<&str>, keys: &ZoneKeys, sites: &[Site], now_s: i64) -> Hash {
        let apex = plain(&zone.spec.apex);
        let mut hash = Sha256::new();
        let mut part = |octets: &[u8]| {
            hash.update(octets.len().to_be_bytes());
            hash.update(octets);
        };
        part(&serde_json::to_vec(&zone.spec).unwrap_or_default());
        part(file.unwrap_or_default().as_bytes());
        part(&serde_json::to_vec(&keys.signing).unwrap_or_default());
        let mut records: Vec<(&String, &Hash)> =
            self.records.iter().filter_map(|(name, seen)| Some((name, seen.zones.get(&apex)?))).collect();
        records.sort();
        for (name, digest) in records {
            part(name.as_bytes());
            part(digest);
        }
        for site in sites.iter().filter(|s| s.kind == "dns") {
            part(site.addresses.join(" ").as_bytes());
        }
        if zone.spec.catalog {
            part(self.apexes.join(" ").as_bytes());
        }
        if zone.spec.dnssec.enabled {
            part(&(now_s / RESIGN_S).to_be_bytes());
            // A child's DS stands here.
            part(self.apexes.join(" ").as_bytes());
        }
        hash.finalize().into()
    }
}

/// For each zone that the object has records in, a digest of those; the longest zone counts.
fn digests(apexes: &[String], object: &DNSEndpoint) -> BTreeMap<String, Hash> {
    let mut hashes: BTreeMap<String, Sha256> = BTreeMap::new();
    for endpoint in &object.spec.endpoints {
        let name = plain(&endpoint.dns_name);
        let above = std::iter::successors(Some(name.as_str()), |n| n.split_once('.').map(|(_, rest)| rest));
        let home = above.into_iter().find(|n| apexes.iter().any(|apex| apex == n));
        if let Some(home) = home {
            let hash = hashes.entry(home.to_owned()).or_default();
            hash.update(serde_json::to_vec(endpoint).unwrap_or_default());
        }
    }
    hashes.into_iter().map(|(apex, hash)| (apex, hash.finalize().into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_serial_changes_with_the_content_of_its_zone_and_no_other() {
        let object = |version: &str, name: &str, target: &str| {
            let object = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
                "metadata": {"name": "r", "namespace": "ops", "resourceVersion": version},
                "spec": {"endpoints": [{"dnsName": name, "recordType": "A", "targets": [target]}]}});
            Arc::new(serde_json::from_value::<DNSEndpoint>(object).unwrap())
        };
        let zone = |apex: &str, signed: bool| {
            let spec = json!({"apex": apex, "dnssec": {"enabled": signed}});
            Zone::new(apex, serde_json::from_value(spec).unwrap())
        };
        let mut known =
            Known { apexes: vec!["a.test".into(), "sub.a.test".into(), "b.test".into()], ..Known::default() };
        let mut next = 100;
        let mut serials = |records: &[Arc<DNSEndpoint>], now_s: i64| {
            known.look(records);
            next += 1;
            [("a.test", false), ("sub.a.test", false), ("b.test", true)].map(|(apex, signed)| {
                let digest = known.digest(&zone(apex, signed), None, &ZoneKeys::default(), &[], now_s);
                known.serial(apex, digest, next)
            })
        };
        for (name, records, now_s, want) in [
            ("the first", vec![], 0, [101, 101, 101]),
            ("the same", vec![], 1, [101, 101, 101]),
            ("a record", vec![object("1", "x.a.test", "192.0.2.1")], 1, [103, 101, 101]),
            ("it again", vec![object("1", "x.a.test", "192.0.2.1")], 1, [103, 101, 101]),
            ("another address", vec![object("2", "X.A.test.", "192.0.2.2")], 1, [105, 101, 101]),
            ("it moves below", vec![object("3", "x.sub.a.test", "192.0.2.2")], 1, [106, 106, 101]),
            ("it goes", vec![], 1, [106, 107, 101]),
            ("days go by", vec![], 3 * 86_400, [106, 107, 108]),
        ] {
            assert_eq!(serials(&records, now_s), want, "{name}");
        }
    }
}
