//! From what clusters run to what they should run, without ever removing the last ready copy. Pure.
//!
//! A cluster that gains gets its new number at once. A cluster that loses keeps what it has until the gaining clusters have made good
//! for it; then it shrinks or leaves. A lost cluster keeps its assignment (nobody can tell it anything), marked so, until it has been
//! back for long enough: then it either is in the target again or leaves.

use std::collections::BTreeMap;

use super::model::Standing;

/// What is known of a Bundle in one cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Replicas that are ready there.
    pub ready: i32,
    /// Everything of the revision that is told is applied.
    pub applied: bool,
}

/// What a cluster is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Replicas (1 where nothing is divided).
    pub replicas: i32,
    /// It is to go as soon as it may.
    pub leaving: bool,
}

/// The next step from `current` to `target`. `keep_last_ready` off: everything at once.
pub fn transition(
    current: &BTreeMap<String, i32>,
    target: &BTreeMap<String, i32>,
    seen: &BTreeMap<String, Seen>,
    standing: &BTreeMap<String, Standing>,
    keep_last_ready: bool,
) -> BTreeMap<String, Assigned> {
    let mut next: BTreeMap<String, Assigned> =
        target.iter().map(|(c, n)| (c.clone(), Assigned { replicas: *n, leaving: false })).collect();
    let settled = !keep_last_ready || made_good(target, seen);
    for (cluster, have) in current {
        let want = target.get(cluster).copied().unwrap_or(0);
        if want >= *have {
            continue;
        }
        let held = match standing.get(cluster) {
            // Gone for good: its Cluster object was removed.
            None => false,
            // Nobody can tell it anything, and what it still runs when it is back serves until it is placed for good.
            Some(Standing::Lost | Standing::Stabilising) => true,
            Some(_) => !settled,
        };
        if held {
            next.insert(cluster.clone(), Assigned { replicas: *have, leaving: want == 0 });
        }
    }
    next
}

/// Whether every cluster of the target has its replicas ready.
fn made_good(target: &BTreeMap<String, i32>, seen: &BTreeMap<String, Seen>) -> bool {
    !target.is_empty() && target.iter().all(|(c, n)| seen.get(c).is_some_and(|s| s.applied && s.ready >= *n))
}
