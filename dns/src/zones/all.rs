//! All zones of a table, who writes what in them, and what was left out. Clones share what does not differ. Pure.
//!
//! In: [`Inputs`], and what they were before. Out: [`Zones`], the zone of a name. They are made whole by [`super::build`] or out of those
//! before by [`super::next`], to the same effect.

use std::collections::HashSet;
use std::sync::Arc;

use atoll_api::ordered::Ordered;
use atoll_api::topology::Topology;
use hickory_proto::rr::Name;

use super::Zone;
use super::build::Building;
use crate::names::ordered;

/// Between a name and who writes there: no label is that.
const NOBODY: u8 = 0;

/// What zones are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'t> {
    pub(crate) topology: &'t Topology,
    /// The apexes of the federation's own zones, the operator's domain first.
    pub(crate) own: &'t [Name],
    /// Names that must lie in a zone.
    pub(crate) hosts: &'t HashSet<Name>,
}

/// All zones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zones {
    /// By the order of their names.
    pub(super) all: Ordered<Box<[u8]>, Held>,
    /// The DNSEndpoints of each name: [`ordered`], [`NOBODY`], the object.
    writers: Ordered<Box<[u8]>, ()>,
    /// What was left out: of which object, at which name where that depends on others, and why.
    pub(super) faults: Ordered<(String, Name), Vec<String>>,
}

/// A zone, the same only when it is the very same.
#[derive(Debug, Clone)]
pub(super) struct Held(pub(super) Arc<Zone>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Zones {
    /// Made whole.
    pub(crate) fn new(inputs: Inputs<'_>) -> Self {
        Building::new(inputs).finish()
    }

    /// The same out of `self`, which was made of `before`: only what differs is made anew, where that can be told.
    pub(crate) fn after(&self, before: Inputs<'_>, inputs: Inputs<'_>) -> Self {
        super::next::next(self, before, inputs).unwrap_or_else(|| Self::new(inputs))
    }

    /// The zone of exactly this name.
    pub(crate) fn at(&self, apex: &Name) -> Option<&Arc<Zone>> {
        self.all.get(&ordered(apex)[..]).map(|held| &held.0)
    }

    /// The zones that `name` lies in, the longest first.
    pub(crate) fn around(&self, name: &Name) -> impl Iterator<Item = &Arc<Zone>> {
        let key = ordered(name);
        let mut at = Some(key.len());
        std::iter::from_fn(move || {
            let end = at?;
            // A key ends with the end of its last label; escaped ends are not 0.
            at = end.checked_sub(1).map(|end| key[..end].iter().rposition(|octet| *octet == 0).map_or(0, |at| at + 1));
            Some(self.all.get(&key[..end]).map(|held| &held.0))
        })
        .flatten()
    }

    /// Whether a zone lies at or below `name`.
    pub(crate) fn has_below(&self, name: &Name) -> bool {
        let key = ordered(name);
        self.all.from_key(&key[..]).next().is_some_and(|(found, _)| found.starts_with(&key))
    }

    /// Every zone.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.all.values().map(|held| &held.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether `other` has zones of the same names.
    pub(crate) fn same_names(&self, other: &Self) -> bool {
        let mut same = self.len() == other.len();
        self.all.differing(&other.all, |_, was, is| same &= was.is_some() && is.is_some());
        same
    }

    pub(super) fn put(&mut self, zone: Zone) {
        self.all.insert(ordered(&zone.apex).into(), Held(Arc::new(zone)));
    }

    /// What was left out, and why.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &String> {
        self.faults.values().flatten()
    }

    /// What was left out that `before` had not.
    pub(crate) fn new_faults(&self, before: &Self) -> Vec<String> {
        let mut new = Vec::new();
        before.faults.differing(&self.faults, |_, was, is| {
            let known = was.map(Vec::as_slice).unwrap_or_default();
            new.extend(is.into_iter().flatten().filter(|fault| !known.contains(fault)).cloned());
        });
        new
    }

    /// Says what of `object` is left out (at `name`); nothing takes it back.
    pub(super) fn blame(&mut self, object: &str, name: Option<&Name>, faults: Vec<String>) {
        let at = (object.to_owned(), name.cloned().unwrap_or_default());
        if faults.is_empty() {
            self.faults.remove(&at);
        } else {
            self.faults.insert(at, faults);
        }
    }

    /// The DNSEndpoints that write `name`, in order.
    pub(super) fn writers(&self, name: &Name) -> Vec<String> {
        let start = writer(name, "");
        let all = self.writers.from_key(&start[..]).map(|(key, ())| key);
        let own = all.map_while(|key| key.strip_prefix(&start[..]));
        own.map(|object| String::from_utf8_lossy(object).into_owned()).collect()
    }

    /// `object` writes `name`, or no more.
    pub(super) fn writes(&mut self, object: &str, name: &Name, writes: bool) {
        let key = writer(name, object);
        if writes {
            self.writers.insert(key.into(), ());
        } else {
            self.writers.remove(&key[..]);
        }
    }

    /// Whether `other` is the same throughout, but for who made it.
    #[cfg(test)]
    pub(super) fn assert_same(&self, other: &Self, case: &str) {
        let names = |zones: &Self| zones.iter().map(|zone| zone.apex.to_string()).collect::<Vec<_>>();
        assert_eq!(names(self), names(other), "{case}");
        for (a, b) in self.iter().zip(other.iter()) {
            a.assert_same(b, case);
        }
        assert_eq!(self.faults, other.faults, "{case}");
        assert_eq!(self.writers, other.writers, "{case}");
    }
}

fn writer(name: &Name, object: &str) -> Vec<u8> {
    let mut key = ordered(name);
    key.push(NOBODY);
    key.extend_from_slice(object.as_bytes());
    key
}

#[cfg(test)]
impl Zone {
    fn assert_same(&self, other: &Self, case: &str) {
        let (a, b) = (self.lines(), other.lines());
        let only = |these: &Vec<String>, those: &Vec<String>| {
            these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
        };
        assert!(a == b, "{case}: {}: {:?} for {:?}", self.apex, only(&a, &b), only(&b, &a));
        assert_eq!(self.written, other.written, "{case}: {}", self.apex);
        assert_eq!((&self.soa, &self.object), (&other.soa, &other.object), "{case}: {}", self.apex);
        let names = |zone: &Self| zone.views.keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(self), names(other), "{case}: {}", self.apex);
        for (view, seen) in &self.views {
            seen.assert_same(&other.views[view], &format!("{case}, view {view}"));
        }
    }

    fn lines(&self) -> Vec<String> {
        let all = self.nodes.iter().flat_map(|node| node.records());
        all.map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect()
    }
}
