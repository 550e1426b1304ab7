//! The names of a zone and what stands at each, as octets: a zone of a hundred thousand names takes a few megabytes. Pure.
//!
//! ```text
//!   node: name │ type, TTL, length, data │ type, TTL, length, data │ …      sorted by type, data in the order in which it came
//! ```
//!
//! In: records. Out: records, made anew out of their octets each time. Names are found whatever their letters' case and keep the spelling
//! that they came with first.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder, Restrict};

use crate::names::octets;

/// Type, time to live, length.
const HEAD: usize = 8;

/// All nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    table: HashTable<Box<[u8]>>,
    seed: RandomState,
}

/// What stands at one name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'n> {
    name: &'n [u8],
    rest: &'n [u8],
}

impl Nodes {
    /// What stands at `name`; `None`: there is no such name.
    pub(super) fn get(&self, name: &Name) -> Option<Node<'_>> {
        let name = octets(name);
        self.table.find(self.hash(&name), |node| is(node, &name)).map(|node| Node::of(node))
    }

    /// Whether there is such a name.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.get(name).is_some()
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node<'_>> {
        self.table.iter().map(|node| Node::of(node))
    }

    /// Makes `name` exist.
    pub(super) fn touch(&mut self, name: &Name) {
        let name = octets(name);
        let hash = self.hash(&name);
        if self.table.find(hash, |node| is(node, &name)).is_none() {
            self.insert(hash, name.into_boxed_slice());
        }
    }

    /// Puts `records`, all of one type, in place of those of that type at `name`; `false` for data that can't be written.
    pub(super) fn put(&mut self, name: &Name, kind: RecordType, records: &[Record]) -> bool {
        let Some(written) = records.iter().map(write).collect::<Option<Vec<_>>>() else { return false };
        self.replace(name, |node| {
            let (before, after): (Vec<_>, Vec<_>) =
                node.raw().filter(|raw| raw.kind != kind).partition(|raw| raw.kind < kind);
            let whole = |raw: &Raw<'_>| raw.whole.to_vec();
            before.iter().map(whole).chain(written).chain(after.iter().map(whole)).flatten().collect()
        });
        true
    }

    /// Keeps of what stands at `name` the types that `keep` wants.
    pub(super) fn retain(&mut self, name: &Name, keep: impl Fn(RecordType) -> bool) {
        if self.contains(name) {
            self.replace(name, |node| {
                node.raw().filter(|raw| keep(raw.kind)).flat_map(|raw| raw.whole.to_vec()).collect()
            });
        }
    }

    /// Puts what `next` makes of a node's records in their place.
    fn replace(&mut self, name: &Name, next: impl FnOnce(Node<'_>) -> Vec<u8>) {
        let name = octets(name);
        let hash = self.hash(&name);
        match self.table.find_mut(hash, |node| is(node, &name)) {
            Some(node) => {
                let held = Node::of(node);
                *node = [held.name, &next(held)].concat().into_boxed_slice();
            }
            None => {
                let whole = [&name[..], &next(Node { name: &name, rest: &[] })].concat();
                self.insert(hash, whole.into_boxed_slice());
            }
        }
    }

    fn insert(&mut self, hash: u64, node: Box<[u8]>) {
        let Self { table, seed } = self;
        table.insert_unique(hash, node, |node| seed.hash_one(Node::of(node).name.to_ascii_lowercase()));
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.seed.hash_one(name.to_ascii_lowercase())
    }
}

fn is(node: &[u8], name: &[u8]) -> bool {
    Node::of(node).name.eq_ignore_ascii_case(name)
}

/// A record's octets, without its name.
fn write(record: &Record) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    record.data.emit(&mut BinEncoder::new(&mut data)).ok()?;
    let mut octets = Vec::with_capacity(HEAD + data.len());
    octets.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
    octets.extend_from_slice(&record.ttl.to_be_bytes());
    octets.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
    octets.extend_from_slice(&data);
    Some(octets)
}

/// A record where it lies.
#[derive(Clone, Copy)]
struct Raw<'n> {
    kind: RecordType,
    ttl: u32,
    data: &'n [u8],
    whole: &'n [u8],
}

impl<'n> Node<'n> {
    fn of(node: &'n [u8]) -> Self {
        let mut at = 0;
        while let Some(length) = node.get(at).filter(|length| **length != 0) {
            at += 1 + usize::from(*length);
        }
        let (name, rest) = node.split_at((at + 1).min(node.len()));
        Self { name, rest }
    }

    /// Its name.
    pub(super) fn name(&self) -> Name {
        Name::read(&mut BinDecoder::new(self.name)).unwrap_or_default()
    }

    /// Whether no records stand here.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The types that stand here, in order.
    pub(super) fn kinds(&self) -> Vec<RecordType> {
        let mut kinds: Vec<RecordType> = self.raw().map(|raw| raw.kind).collect();
        kinds.dedup();
        kinds
    }

    /// Whether a type stands here.
    pub(super) fn has(&self, kind: RecordType) -> bool {
        self.raw().any(|raw| raw.kind == kind)
    }

    /// The records of a type; `None` where there are none.
    pub(super) fn set(&self, kind: RecordType) -> Option<Vec<Record>> {
        let set: Vec<Record> = self.records_of(|k| k == kind).collect();
        (!set.is_empty()).then_some(set)
    }

    /// All records.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + use<'n> {
        self.records_of(|_| true)
    }

    fn records_of<F: Fn(RecordType) -> bool>(&self, wanted: F) -> impl Iterator<Item = Record> + use<'n, F> {
        let mut name = None;
        let node = *self;
        self.raw().filter(move |raw| wanted(raw.kind)).filter_map(move |raw| {
            let length = Restrict::new(u16::try_from(raw.data.len()).ok()?);
            let data = RData::read(&mut BinDecoder::new(raw.data), raw.kind, length).ok()?;
            let name = name.get_or_insert_with(|| node.name()).clone();
            Some(Record::from_rdata(name, raw.ttl, data))
        })
    }

    fn raw(&self) -> impl Iterator<Item = Raw<'n>> + use<'n> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let head: &[u8; HEAD] = rest.first_chunk()?;
            let [k0, k1, t0, t1, t2, t3, l0, l1] = *head;
            let (whole, after) = rest.split_at_checked(HEAD + usize::from(u16::from_be_bytes([l0, l1])))?;
            rest = after;
            let (kind, ttl) = (u16::from_be_bytes([k0, k1]), u32::from_be_bytes([t0, t1, t2, t3]));
            Some(Raw { kind: RecordType::from(kind), ttl, data: &whole[HEAD..], whole })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::absolute;
    use crate::testing::topology;

    #[test]
    fn what_is_put_is_what_is_there() {
        let name = Name::from_ascii("Www.example.com.").unwrap();
        let record = |kind: &str, ttl, text: &str| atoll_api::records::record(name.clone(), kind, ttl, text).unwrap();
        let mut nodes = Nodes::default();
        let mx = [record("MX", 60, "10 mail.example.com."), record("MX", 60, "20 Mail2.example.com.")];
        let a = [record("A", 5, "192.0.2.1")];
        assert!(nodes.put(&name, RecordType::MX, &mx) && nodes.put(&name, RecordType::A, &a));
        let node = nodes.get(&absolute("wWW.EXAMPLE.com").unwrap()).unwrap();
        assert_eq!(node.name().to_ascii(), "Www.example.com.");
        assert_eq!(
            (node.kinds(), node.set(RecordType::MX).unwrap()),
            (vec![RecordType::A, RecordType::MX], mx.to_vec())
        );
        assert_eq!(node.records().count(), 3);
        assert_eq!(node.set(RecordType::TXT), None);
        nodes.retain(&name, |kind| kind == RecordType::A);
        assert_eq!(nodes.get(&name).unwrap().set(RecordType::A), Some(a.to_vec()));
        let inner = absolute("a.example.com").unwrap();
        nodes.touch(&inner);
        assert!(nodes.get(&inner).is_some_and(|node| node.is_empty()) && nodes.iter().count() == 2);
    }

    #[test]
    fn every_kind_of_record_comes_back_as_it_was() {
        let mut nodes = Nodes::default();
        let all = topology();
        for facts in all.zones.values() {
            for record in atoll_api::records::own(&facts.spec, facts.file()).records {
                let name = absolute(&format!("x{}.example", nodes.iter().count())).unwrap();
                let record = Record::from_rdata(name.clone(), record.ttl, record.data);
                assert!(nodes.put(&name, record.record_type(), std::slice::from_ref(&record)));
                assert_eq!(nodes.get(&name).unwrap().set(record.record_type()), Some(vec![record]));
            }
        }
        assert!(nodes.iter().count() > 5);
    }
}
