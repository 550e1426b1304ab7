//! What updates can't delete: a Zone's own records and those of other DNSEndpoints, read once for each change of what they are read from.
//!
//! In: a Zone, its file, the DNSEndpoints but that of its updates. Out: the records, shared while nothing of that is another. Objects are held
//! while their records are, so that the place of one in memory says which it is. Never reads an object twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use atoll_api::kinds::{DNSEndpoint, Zone};
use atoll_api::records;
use atoll_api::update::Fixed;
use kube::ResourceExt as _;

/// A DNSEndpoint and the records that it stands for.
type Object = (Arc<DNSEndpoint>, Arc<[Fixed]>);

/// What was read.
#[derive(Default)]
pub(super) struct Readings {
    zones: HashMap<String, Reading>,
    /// By where they lie in memory.
    objects: HashMap<usize, Object>,
}

/// One zone.
struct Reading {
    zone: Mark,
    objects: Mark,
    /// Of the Zone and its file.
    own: Arc<[Fixed]>,
    all: Arc<[Fixed]>,
}

/// Another number whenever something is another.
type Mark = u64;

impl Readings {
    /// The records that updates of `zone` can't delete.
    pub(super) fn of(&mut self, zone: &Zone, file: Option<&str>, others: &[Arc<DNSEndpoint>]) -> Arc<[Fixed]> {
        let Some(apex) = records::absolute(&zone.spec.apex) else { return Arc::default() };
        let marks = (mark((zone.uid(), zone.metadata.generation, zone.resource_version(), file)), sum(others));
        let held = self.zones.get(&zone.name_any()).filter(|held| held.zone == marks.0);
        let own = match held {
            Some(held) if held.objects == marks.1 => return Arc::clone(&held.all),
            Some(held) => Arc::clone(&held.own),
            None => own(zone, file),
        };
        self.look(others);
        let of_others = others.iter().filter_map(|object| self.objects.get(&place(object)));
        let of_others = of_others.flat_map(|(_, records)| records.iter()).filter(|r| apex.zone_of(&r.name));
        let all: Arc<[Fixed]> = own.iter().chain(of_others).cloned().collect();
        let reading = Reading { zone: marks.0, objects: marks.1, own, all: Arc::clone(&all) };
        self.zones.insert(zone.name_any(), reading);
        all
    }

    /// Forgets zones that are gone.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.zones.retain(|name, _| is_there(name));
    }

    /// Reads the objects that are new, and forgets those that are gone.
    fn look(&mut self, objects: &[Arc<DNSEndpoint>]) {
        let mut before = std::mem::take(&mut self.objects);
        for object in objects {
            let read = || (Arc::clone(object), records::of_endpoints(&object.spec.endpoints, |_| ()).into());
            let held = before.remove(&place(object)).unwrap_or_else(read);
            self.objects.insert(place(object), held);
        }
    }
}

/// The records of a Zone and its file, SOA and NS among them.
fn own(zone: &Zone, file: Option<&str>) -> Arc<[Fixed]> {
    let mut own = records::own(&zone.spec, file).records;
    let head =
        records::absolute(&zone.spec.apex).map(|apex| records::head(&apex, &zone.spec.soa, &zone.spec.ns, 0, &own));
    own.extend(head.into_iter().flatten());
    own.into()
}

fn place(object: &Arc<DNSEndpoint>) -> usize {
    Arc::as_ptr(object).addr()
}

/// In whatever order they come.
fn sum(objects: &[Arc<DNSEndpoint>]) -> Mark {
    objects.iter().map(|object| mark(place(object))).fold(0, Mark::wrapping_add)
}

fn mark(what: impl std::hash::Hash) -> Mark {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, address: &str) -> Arc<DNSEndpoint> {
        let endpoints = json!([{"dnsName": name, "recordType": "A", "targets": [address]}]);
        let object = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
            "metadata": {"name": name, "namespace": "ops"}, "spec": {"endpoints": endpoints}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn zone(apex: &str, generation: i64, records: &Value) -> Zone {
        let mut zone = Zone::new(apex, serde_json::from_value(json!({"apex": apex, "records": records})).unwrap());
        (zone.metadata.generation, zone.metadata.uid) = (Some(generation), Some(apex.to_owned()));
        zone
    }

    /// Owners of addresses.
    fn hosts(all: &[Fixed]) -> Vec<String> {
        let mut hosts: Vec<String> =
            all.iter().filter(|r| r.record_type().is_ip_addr()).map(|r| format!("{} {}", r.name, r.data)).collect();
        hosts.sort();
        hosts
    }

    #[test]
    fn what_updates_can_not_delete_is_read_anew_where_it_is_another_and_only_then() {
        let mut readings = Readings::default();
        let (first, second) = (zone("a.test", 1, &json!([])), zone("b.test", 1, &json!([])));
        let (x, y) = (object("x.a.test", "192.0.2.1"), object("y.b.test", "192.0.2.2"));
        let both = [Arc::clone(&x), Arc::clone(&y)];
        let all = readings.of(&first, None, &both);
        assert_eq!(hosts(&all), ["x.a.test. 192.0.2.1"]);
        assert!(all.iter().any(|r| r.record_type().is_soa()), "its head, too");
        assert_eq!(hosts(&readings.of(&second, None, &both)), ["y.b.test. 192.0.2.2"]);
        let again = readings.of(&first, None, &[Arc::clone(&y), Arc::clone(&x)]);
        assert!(Arc::ptr_eq(&all, &again), "in another order it is the same");

        // One object is another: the other one is not read again.
        let read = Arc::clone(&readings.objects[&place(&y)].1);
        let moved = object("x.a.test", "192.0.2.9");
        assert_eq!(hosts(&readings.of(&first, None, &[Arc::clone(&moved), Arc::clone(&y)])), ["x.a.test. 192.0.2.9"]);
        assert!(Arc::ptr_eq(&read, &readings.objects[&place(&y)].1));
        assert_eq!(readings.objects.len(), 2, "who is gone is forgotten");

        // The Zone is another, its file is.
        let written = zone("a.test", 2, &json!([{"name": "w", "type": "A", "values": ["192.0.2.3"]}]));
        assert_eq!(hosts(&readings.of(&written, None, &[Arc::clone(&y)])), ["w.a.test. 192.0.2.3"]);
        let got = readings.of(&written, Some("f 60 IN A 192.0.2.4\n"), &[y]);
        assert_eq!(hosts(&got), ["f.a.test. 192.0.2.4", "w.a.test. 192.0.2.3"]);
        readings.keep(|name| name == "b.test");
        assert_eq!(readings.zones.len(), 1);
    }
}
