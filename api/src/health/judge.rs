//! What several observers make of many targets: quorum, hold-down, and distrust of oneself when almost everything seems down.
//!
//! ```text
//!   votes (each already with fall 3, rise 2) ── quorum ── more than half of all groups down? ── held since the last flip? ──► down
//! ```
//!
//! In: the targets, what each vantage point says of them, the time. Out: those that are down. A vantage point's word counts once for
//! each target. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What turned down so lately was part of what now looks like an observer's failure.
const AT_ONCE: Duration = Duration::from_secs(30);

/// What vantage points say of one target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Votes {
    /// So many find it well.
    pub up: u32,
    /// So many find it ill.
    pub down: u32,
}

impl Votes {
    /// The word of one vantage point more.
    pub fn add(&mut self, up: bool) {
        if up { self.up += 1 } else { self.down += 1 }
    }

    /// What a majority says, of at least two where there are two; `None`: they don't agree, or nobody says anything.
    pub fn verdict(self) -> Option<bool> {
        let all = self.up + self.down;
        let needed = if all == 1 { 1 } else { (all / 2 + 1).max(2) };
        match () {
            () if self.down >= needed => Some(false),
            () if self.up >= needed => Some(true),
            () => None,
        }
    }
}

/// A target that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion<'a> {
    /// Which.
    pub key: &'a str,
    /// What counts as one when it is asked whether almost everything is down.
    pub group: &'a str,
    /// After a flip it stays as it is for so long: at least the time that resolvers keep the answer.
    pub hold: Duration,
}

#[derive(Debug, Clone, Copy)]
struct State {
    up: bool,
    /// When it flipped; `None`: never.
    flipped: Option<Duration>,
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Keys of the targets that are down.
    pub down: BTreeSet<String>,
    /// More than half of all groups seem down: it is the observers who can't see, and nothing more is taken out.
    pub distrust: bool,
    /// When a flip that is held back becomes due.
    pub next: Option<Duration>,
}

/// Remembers how every target was.
#[derive(Debug, Default)]
pub struct Judge {
    states: BTreeMap<String, State>,
}

impl Judge {
    /// Judges at `now`, measured from any fixed moment. Targets that are not named any more are forgotten; a new one is up.
    pub fn judge(&mut self, targets: &[Opinion<'_>], votes: &BTreeMap<String, Votes>, now: Duration) -> Judged {
        let said = |key: &str| votes.get(key).and_then(|v| v.verdict());
        let named: BTreeSet<&str> = targets.iter().map(|t| t.key).collect();
        self.states.retain(|key, _| named.contains(key.as_str()));
        let mut judged = Judged { distrust: self.distrust(targets, &said), ..Judged::default() };
        for target in targets {
            let state = self.states.entry(target.key.to_owned()).or_insert(State { up: true, flipped: None });
            if judged.distrust {
                let lately = state.flipped.is_some_and(|at| now.saturating_sub(at) < AT_ONCE);
                if !state.up && lately {
                    *state = State { up: true, flipped: Some(now) };
                }
            }
            let wanted = said(target.key).unwrap_or(state.up);
            let held = state.flipped.map(|at| at + target.hold).filter(|until| now < *until);
            match (wanted == state.up, wanted || !judged.distrust, held) {
                (true, ..) | (_, false, _) => {}
                (false, true, None) => *state = State { up: wanted, flipped: Some(now) },
                (false, true, Some(until)) => judged.next = Some(judged.next.map_or(until, |n| n.min(until))),
            }
            if !state.up {
                judged.down.insert(target.key.to_owned());
            }
        }
        judged
    }

    /// Whether more than half of all groups would be down: those most of whose targets are.
    fn distrust(&self, targets: &[Opinion<'_>], said: &impl Fn(&str) -> Option<bool>) -> bool {
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for target in targets.iter().filter(|t| counted.insert(t.key)) {
            let was = self.states.get(target.key).is_none_or(|s| s.up);
            let (down, all) = groups.entry(target.group).or_default();
            *down += usize::from(!said(target.key).unwrap_or(was));
            *all += 1;
        }
        let down = groups.values().filter(|(down, all)| down * 2 > *all).count();
        down * 2 > groups.len()
    }
}

#[cfg(test)]
mod tests;
