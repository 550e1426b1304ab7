//! Names below one that does not exist: they don't either (RFC 8020 §2), so that a search list's completions are asked for once and not each.
//!
//! In: a member, a name, what is kept. Out: whether a name above it is known not to be there; that question itself, asked ahead of need. A
//! member that denies a name of its own which is there and has names below it is not believed on what lies below others.

use std::sync::Arc;

use hickory_proto::rr::{Name, Record, RecordType};
use tokio::time::Instant;

use super::{Asking, Lookups, Question};
use crate::budget::Budget;
use crate::cache::{Bits, Cached, Kept};
use crate::completion;
use crate::road::Road;
use crate::table::Member;
use crate::translate::Asked;
use crate::wire::query::NAME_MAX;

/// Labels of the longest name.
const LABELS_MAX: usize = NAME_MAX / 2;

impl Lookups {
    /// That a name does not exist because one of those `above` it does not, as far as the member is believed on it.
    pub(super) fn absent_above(&self, member: &Member, above: &[Name]) -> Option<Kept> {
        let absent = |n: &Name| self.cache.absent(member.fingerprint, n, Bits::default(), Instant::now());
        above.iter().find_map(absent).filter(|_| self.tells_inner(member) == Some(true))
    }

    /// Whether a name above `name` is known not to be there: the slow path knows what that means.
    pub(super) fn is_absent(&self, road: &Road, name: &[u8], left: usize, now: Instant) -> bool {
        let mut starts = [0; LABELS_MAX];
        let mut path: [&[u8]; LABELS_MAX] = [&[]; LABELS_MAX];
        let (mut at, mut labels) = (0, 0);
        while at < left && labels < LABELS_MAX {
            let length = usize::from(name[at]);
            (starts[labels], path[labels]) = (at, &name[at + 1..at + 1 + length]);
            (at, labels) = (at + 1 + length, labels + 1);
        }
        let whose = road.member.fingerprint;
        let absent =
            |cut: usize| self.cache.standing(whose, &name[starts[labels - cut]..], 0, now).absent == Some(true);
        road.member.kind.specified && completion::cuts(&path[..labels]).any(absent)
    }

    /// Asks, ahead of need, whether the name above one that does not exist does: if not, nothing below it does, and the member is not asked
    /// for each.
    pub(super) fn learn_above(&self, member: &Arc<Member>, above: Option<&Name>, soa: Record) {
        let (whose, bits, now) = (member.fingerprint, Bits::default(), Instant::now());
        let inner = member.inner();
        let name = match self.tells_inner(member) {
            Some(true) => above,
            Some(false) => None,
            None => inner.as_ref().filter(|_| above.is_some()),
        };
        let Some(name) = name else { return };
        let known = self.cache.get(whose, name, RecordType::A, bits, now);
        let (Cached::None | Cached::Stale(_), Ok(Some(native))) = (known, member.rename.to_native(name)) else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.ahead).try_acquire_owned() else { return };
        let asked = Asked { native, qtype: RecordType::A, trail: None };
        let asking = Asking { budget: Budget::new(now), client: 0, trail: None };
        let ask = self.asked_of(member, asked, soa, asking.budget.clone());
        let question = Question { whose, name: name.clone(), kind: RecordType::A, bits };
        self.ahead(&question, &asking, permit, ask);
    }

    /// Whether a member tells names that hold nothing from names that don't exist; `None`: nobody has asked it.
    fn tells_inner(&self, member: &Member) -> Option<bool> {
        let inner = member.inner()?;
        match self.cache.get(member.fingerprint, &inner, RecordType::A, Bits::default(), Instant::now()) {
            Cached::Fresh(kept) | Cached::Ending(kept) | Cached::Stale(kept) => Some(!kept.nxdomain),
            Cached::None => None,
        }
    }
}
