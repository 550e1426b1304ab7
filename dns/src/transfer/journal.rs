//! What changed in the zones that are transferred, by serial (RFC 1995 §4): bounded, and lost with the process, for then they go whole.
//!
//! In: a zone before and after. Out: the records that lead from one serial to the present one. Nothing is noted of signed zones:
//! their signatures change with time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zones::Zone;

/// Changes of one zone.
const STEPS_MAX: usize = 100;
/// Records in the changes of one zone.
const RECORDS_MAX: usize = 50_000;
/// Zones.
const ZONES_MAX: usize = 10_000;

/// From one serial to the next.
#[derive(Debug, Clone)]
struct Step {
    from: Record,
    removed: Vec<Record>,
    to: Record,
    added: Vec<Record>,
}

impl Step {
    fn len(&self) -> usize {
        2 + self.removed.len() + self.added.len()
    }
}

/// One zone, in one view or in none.
type Key = (Name, Option<String>);

/// The changes of every zone, in every view of it.
#[derive(Debug, Default)]
pub(crate) struct Journals(Mutex<HashMap<Key, VecDeque<Arc<Step>>>>);

impl Journals {
    /// Notes how a zone changed, in each of its views.
    pub(crate) fn note(&self, before: &Zone, after: &Zone) {
        if before.serial() == after.serial() {
            return;
        }
        self.step(before, after, None);
        // A view that comes or goes shows what all see before or after.
        let views: BTreeSet<&str> = before.views().chain(after.views()).collect();
        for view in views {
            self.step(before.seen_by(Some(view)), after.seen_by(Some(view)), Some(view));
        }
    }

    fn step(&self, before: &Zone, after: &Zone, view: Option<&str>) {
        let at: Key = (after.apex().clone(), view.map(str::to_owned));
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if before.keys().is_some() || after.keys().is_some() || (zones.len() >= ZONES_MAX && !zones.contains_key(&at)) {
            zones.remove(&at);
            return;
        }
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        before.differing(after, |was, is| {
            let only = |these: &[Record], those: &[Record]| {
                let same = |a: &Record, b: &Record| a.ttl == b.ttl && a.data == b.data;
                these.iter().filter(|r| !those.iter().any(|o| same(r, o))).cloned().collect::<Vec<_>>()
            };
            removed.extend(only(&was, &is));
            added.extend(only(&is, &was));
        });
        let steps = zones.entry(at).or_default();
        // A change that was missed breaks the chain.
        if steps.back().is_some_and(|last| serial(&last.to) != before.serial()) {
            steps.clear();
        }
        steps.push_back(Arc::new(Step { from: before.soa(), removed, to: after.soa(), added }));
        while steps.len() > STEPS_MAX || steps.iter().map(|s| s.len()).sum::<usize>() > RECORDS_MAX {
            steps.pop_front();
        }
    }

    /// Forgets the zones that are no more.
    pub(crate) fn keep(&self, there: impl Fn(&Name) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(apex, _), _| there(apex));
    }

    /// The differences from serial `held` to `zone` in `view`; `None` where they are not known.
    pub(crate) fn since(
        &self,
        zone: &Zone,
        view: Option<&str>,
        held: u32,
    ) -> Option<impl Iterator<Item = Record> + Send + use<>> {
        let zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = zones.get(&(zone.apex().clone(), view.map(str::to_owned)))?;
        let first = steps.iter().position(|step| serial(&step.from) == held)?;
        let steps: Vec<Arc<Step>> = steps.iter().skip(first).cloned().collect();
        (serial(&steps.last()?.to) == zone.serial()).then_some(())?;
        Some(steps.into_iter().flat_map(|step| {
            let Step { from, removed, to, added } = step.as_ref().clone();
            std::iter::once(from).chain(removed).chain(std::iter::once(to)).chain(added)
        }))
    }
}

fn serial(record: &Record) -> u32 {
    match &record.data {
        RData::SOA(soa) => soa.serial,
        _ => {
            debug_assert_eq!(record.record_type(), RecordType::SOA);
            0
        }
    }
}
