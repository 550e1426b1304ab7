//! What the publisher listens to: which of its inputs may be others, so that a pass looks at nothing else.

use futures::future::select_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::membership::Membership;
use crate::objects::Topic;

type Signal = watch::Receiver<u64>;

/// What was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Members, how they do, sites, what sites say; or it is time to look.
    pub(super) members: bool,
    /// Sites came, went or say something else.
    pub(super) sites: bool,
    /// What members report of their services.
    pub(super) reports: bool,
    pub(super) traffic: bool,
    /// Zones and records.
    pub(super) names: bool,
    pub(super) imports: bool,
}

impl Heard {
    /// Everything: nothing was looked at yet.
    pub(super) fn all() -> Self {
        Self { members: true, sites: true, reports: true, traffic: true, names: true, imports: true }
    }
}

/// Listens.
pub(super) struct Ears {
    /// What was heard already and not taken yet, in the order of [`Self::all`].
    moved: [bool; 7],
    clusters: Signal,
    sessions: Signal,
    sites: Signal,
    reports: Signal,
    traffic: Signal,
    names: Signal,
    imports: Signal,
}

impl Ears {
    pub(super) fn new(membership: &Membership) -> Self {
        let objects = &membership.objects;
        Self {
            moved: [false; 7],
            clusters: objects.changes_of(Topic::Clusters),
            sessions: membership.sessions.changes(),
            sites: membership.sites.changes(),
            reports: membership.sessions.reports(),
            traffic: objects.changes_of(Topic::Traffic),
            names: objects.changes_of(Topic::Names),
            imports: objects.changes_of(Topic::Imports),
        }
    }

    fn all(&mut self) -> [&mut Signal; 7] {
        let Self { moved: _, clusters, sessions, sites, reports, traffic, names, imports } = self;
        [clusters, sessions, sites, reports, traffic, names, imports]
    }

    /// Waits until something is heard, or until then. Cancel safe.
    pub(super) async fn next(&mut self, until: Instant) {
        let changes = self.all().map(|signal| Box::pin(signal.changed()));
        let heard = timeout_at(until, select_all(changes)).await.map(|(changed, at, _)| changed.map(|()| at));
        match heard {
            // A signal that was waited for says nothing more.
            Ok(Ok(at)) => self.moved[at] = true,
            // Its owner has gone, and so will we.
            Ok(Err(_)) => sleep_until(until).await,
            Err(_) => {}
        }
    }

    /// What was heard since the last time. `due`: when members are to be looked at anyway.
    pub(super) fn take(&mut self, due: Instant, now: Instant) -> Heard {
        let mut moved = std::mem::take(&mut self.moved);
        for (moved, signal) in moved.iter_mut().zip(self.all()) {
            *moved |= signal.has_changed().unwrap_or(false);
            signal.mark_unchanged();
        }
        let [clusters, sessions, sites, reports, traffic, names, imports] = moved;
        Heard { members: clusters || sessions || sites || now >= due, sites, reports, traffic, names, imports }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_is_heard_is_taken_once_and_members_are_looked_at_when_it_is_time() {
        let senders: [watch::Sender<u64>; 7] = std::array::from_fn(|_| watch::Sender::new(0));
        let [clusters, sessions, sites, reports, traffic, names, imports] = &senders.each_ref().map(|s| s.subscribe());
        let mut ears = Ears {
            moved: [false; 7],
            clusters: clusters.clone(),
            sessions: sessions.clone(),
            sites: sites.clone(),
            reports: reports.clone(),
            traffic: traffic.clone(),
            names: names.clone(),
            imports: imports.clone(),
        };
        let (members, sites) = (true, true);
        for (at, expected) in [
            (vec![0], Heard { members, ..Heard::default() }),
            (vec![1], Heard { members, ..Heard::default() }),
            (vec![2, 3], Heard { members, sites, reports: true, ..Heard::default() }),
            (vec![3, 3], Heard { reports: true, ..Heard::default() }),
            (vec![4, 5, 6], Heard { traffic: true, names: true, imports: true, ..Heard::default() }),
            (vec![], Heard { members, ..Heard::default() }),
        ] {
            let due = Instant::now() + Duration::from_secs(1);
            at.iter().for_each(|at| senders[*at].send_modify(|n| *n += 1));
            ears.next(due).await;
            assert_eq!(ears.take(due, Instant::now()), expected, "{at:?}");
            assert_eq!(ears.take(due + Duration::from_secs(9), Instant::now()), Heard::default(), "once: {at:?}");
        }
    }
}
