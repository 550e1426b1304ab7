//! The names of a zone and what stands at each, as octets: a zone of a hundred thousand names takes a few megabytes. Pure.
//!
//! ```text
//!   key: the name from the root on │ node: name │ type, TTL, length, data │ type, TTL, length, data │ …
//!                                          sorted by type, data in the order in which it came
//! ```
//!
//! In: records. Out: records, made anew out of their octets each time. Names are found whatever their letters' case and keep the spelling
//! that they came with first. Names that only have names below them are there without a node. Clones share what does not differ: a change
//! of one name copies a few dozen nodes, and finding what differs between neighbours costs what differs.

use atoll_api::ordered::Ordered;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder, Restrict};

use crate::names::{octets, ordered};

/// Type, time to live, length.
const HEAD: usize = 8;

/// All nodes, in the canonical order of their names (RFC 4034 §6.1).
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Nodes(Ordered<Box<[u8]>, Box<[u8]>>);

/// What stands at one name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'n> {
    name: &'n [u8],
    rest: &'n [u8],
}

impl Nodes {
    /// What stands at `name`; `None`: there is no such name.
    pub(super) fn get(&self, name: &Name) -> Option<Node<'_>> {
        let key = ordered(name);
        let (found, node) = self.0.from_key(&key[..]).next()?;
        if **found == *key {
            return Some(Node::of(node));
        }
        // The names below come right behind.
        found.starts_with(&key).then_some(Node { name: &[], rest: &[] })
    }

    /// Whether there is such a name.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.get(name).is_some()
    }

    /// How many names have records.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What stands at each of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node<'_>> {
        self.0.values().map(|node| Node::of(node))
    }

    /// Tells `found` what differs at each name: what stands here, and what stands in `newer`.
    pub(super) fn differing(&self, newer: &Self, mut found: impl FnMut(Option<Node<'_>>, Option<Node<'_>>)) {
        self.0.differing(&newer.0, |_, was, is| {
            found(was.map(|node| Node::of(node)), is.map(|node| Node::of(node)));
        });
    }

    /// Puts `records`, all of one type, in place of those of that type at `name`; `false` for data that can't be written.
    pub(super) fn put(&mut self, name: &Name, kind: RecordType, records: &[Record]) -> bool {
        let Some(written) = records.iter().map(write).collect::<Option<Vec<_>>>() else { return false };
        let held = self.get(name).unwrap_or(Node { name: &[], rest: &[] });
        let (before, after): (Vec<_>, Vec<_>) =
            held.raw().filter(|raw| raw.kind != kind).partition(|raw| raw.kind < kind);
        let whole = |raw: &Raw<'_>| raw.whole.to_vec();
        let rest: Vec<u8> = before.iter().map(whole).chain(written).chain(after.iter().map(whole)).flatten().collect();
        let spelled = if held.name.is_empty() { octets(name) } else { held.name.to_vec() };
        self.set(ordered(name), [spelled, rest].concat());
        true
    }

    /// What stands at `name` is what stands there in `other`.
    pub(super) fn take(&mut self, name: &Name, other: &Self) {
        let key = ordered(name);
        match other.0.get(&key[..]) {
            Some(node) => self.set(key, node.to_vec()),
            None => drop(self.0.remove(&key[..])),
        }
    }

    /// What stands at `name` is what stands there in `below`, but for the types that `above` has there: those are as it has them. An alias
    /// stands alone (RFC 1034 §3.6.2).
    pub(super) fn overlay(&mut self, name: &Name, below: &Self, above: &Self) {
        let Some(over) = above.get(name).filter(|node| !node.is_empty()) else { return self.take(name, below) };
        let kinds = over.kinds();
        let alias = kinds.contains(&RecordType::CNAME);
        let under = below.get(name);
        let stays = |raw: &Raw<'_>| !alias && raw.kind != RecordType::CNAME && !kinds.contains(&raw.kind);
        let mut all: Vec<Raw<'_>> = under.iter().flat_map(Node::raw).filter(stays).chain(over.raw()).collect();
        all.sort_by_key(|raw| raw.kind);
        let spelled = under.filter(|node| !node.name.is_empty()).unwrap_or(over).name;
        let node = all.iter().fold(spelled.to_vec(), |mut node, raw| {
            node.extend_from_slice(raw.whole);
            node
        });
        self.set(ordered(name), node);
    }

    /// Where nothing differs nothing is copied.
    fn set(&mut self, key: Vec<u8>, node: Vec<u8>) {
        if self.0.get(&key[..]).is_none_or(|held| **held != *node) {
            self.0.insert(key.into(), node.into());
        }
    }
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

    /// Its name, where records stand.
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

    fn record(name: &str, kind: &str, ttl: u32, text: &str) -> Record {
        atoll_api::records::record(Name::from_ascii(name).unwrap(), kind, ttl, text).unwrap()
    }

    #[test]
    fn what_is_put_is_what_is_there() {
        let name = Name::from_ascii("Www.example.com.").unwrap();
        let mut nodes = Nodes::default();
        let mx = [
            record("Www.example.com.", "MX", 60, "10 mail.example.com."),
            record("Www.example.com.", "MX", 60, "20 Mail2.example.com."),
        ];
        let a = [record("Www.example.com.", "A", 5, "192.0.2.1")];
        assert!(nodes.put(&name, RecordType::MX, &mx) && nodes.put(&name, RecordType::A, &a));
        let node = nodes.get(&absolute("wWW.EXAMPLE.com").unwrap()).unwrap();
        assert_eq!(node.name().to_ascii(), "Www.example.com.");
        assert_eq!(
            (node.kinds(), node.set(RecordType::MX).unwrap()),
            (vec![RecordType::A, RecordType::MX], mx.to_vec())
        );
        assert_eq!(node.records().count(), 3);
        assert_eq!(node.set(RecordType::TXT), None);
        for (there, inner) in [(true, "example.com"), (true, "com"), (false, "xample.com"), (false, "a.example.com")] {
            let node = nodes.get(&absolute(inner).unwrap());
            assert_eq!(node.map(|node| node.is_empty()), there.then_some(true), "{inner}");
        }
        nodes.take(&name, &Nodes::default());
        assert!(nodes.get(&name).is_none() && nodes.len() == 0);
    }

    #[test]
    fn a_view_has_its_own_types_in_place_of_those_below_and_an_alias_stands_alone() {
        let name = absolute("www.example").unwrap();
        let of = |records: &[Record]| {
            let mut nodes = Nodes::default();
            records.iter().for_each(|r| assert!(nodes.put(&name, r.record_type(), std::slice::from_ref(r))));
            nodes
        };
        let (a, b) = (record("www.example.", "A", 5, "192.0.2.1"), record("www.example.", "A", 9, "192.0.2.2"));
        let (txt, alias) = (record("www.example.", "TXT", 5, "x"), record("www.example.", "CNAME", 5, "y.example."));
        for (below, above, seen) in [
            (vec![a.clone(), txt.clone()], vec![b.clone()], vec![b.clone(), txt.clone()]),
            (vec![a.clone()], vec![], vec![a.clone()]),
            (vec![], vec![b.clone()], vec![b.clone()]),
            (vec![a.clone(), txt.clone()], vec![alias.clone()], vec![alias.clone()]),
            (vec![alias], vec![txt.clone()], vec![txt]),
        ] {
            let mut nodes = of(&below);
            nodes.overlay(&name, &of(&below), &of(&above));
            assert_eq!(nodes.get(&name).unwrap().records().collect::<Vec<_>>(), seen);
        }
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
