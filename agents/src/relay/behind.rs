//! The replicas behind one address: a balancer picks to which a connection goes, and each is to have one.
//!
//! In: which replicas are wanted there, and what each connection hears from whom it reached. Out: how many connections there are to be, and
//! whether one stays. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Who is behind an address, and who is reached. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind(Arc<Mutex<Replicas>>);

#[derive(Debug, Default)]
struct Replicas {
    wanted: BTreeSet<String>,
    reached: BTreeMap<String, usize>,
    /// Connections that are kept up.
    running: usize,
}

impl Replicas {
    /// How many there are to be: where nobody is known there is somebody nevertheless, and those to replicas that leave go on beside.
    fn count(&self) -> usize {
        let leaving = self.reached.iter().filter(|(name, _)| !self.wanted.is_empty() && !self.wanted.contains(*name));
        self.wanted.len().max(1) + leaving.map(|(_, count)| count).sum::<usize>()
    }
}

impl Behind {
    /// The replicas that are to be reached from now on. Returns how many connections more are to be kept up.
    pub(super) fn want(&self, wanted: &BTreeSet<String>) -> usize {
        self.with(|replicas| {
            replicas.wanted.clone_from(wanted);
            let more = replicas.count().saturating_sub(replicas.running);
            replicas.running += more;
            more
        })
    }

    /// Whether a connection that has ended is one too many, and is kept up no more.
    pub(super) fn drop_surplus(&self) -> bool {
        self.with(|replicas| {
            let surplus = replicas.running > replicas.count();
            replicas.running -= usize::from(surplus);
            surplus
        })
    }

    /// Whether a connection to this replica stays: not where it has one already and another has none. It counts for as long as what is
    /// returned is held.
    pub(super) fn take(&self, replica: &str) -> Option<Reached> {
        self.with(|replicas| {
            let count = |name: &str| replicas.reached.get(name).copied().unwrap_or(0);
            if count(replica) > 0 && replicas.wanted.iter().any(|other| count(other) == 0) {
                return None;
            }
            *replicas.reached.entry(replica.to_owned()).or_default() += 1;
            Some(Reached { behind: self.clone(), replica: replica.to_owned() })
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Replicas) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection that stays.
#[derive(Debug)]
pub(super) struct Reached {
    behind: Behind,
    replica: String,
}

impl Drop for Reached {
    fn drop(&mut self) {
        self.behind.with(|replicas| {
            if let Some(count) = replicas.reached.get_mut(&self.replica) {
                *count -= 1;
            }
            replicas.reached.retain(|_, count| *count > 0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(wanted: &[&str]) -> Behind {
        let behind = Behind::default();
        let _ = behind.want(&wanted.iter().map(|name| (*name).to_owned()).collect());
        behind
    }

    #[test]
    fn a_second_connection_to_one_replica_goes_on_only_where_all_have_one() {
        let behind = behind(&["a", "b"]);
        let first = behind.take("a").unwrap();
        assert!(behind.take("a").is_none(), "b has none");
        let second = behind.take("b").unwrap();
        let third = behind.take("a").unwrap();
        drop(first);
        drop(third);
        assert!(behind.take("b").is_none(), "a has none any more");
        drop(second);
        behind.want(&BTreeSet::from(["c".to_owned()]));
        let unknown = behind.take("a").expect("who is not known yet may be new");
        assert!(behind.take("a").is_none(), "c has none");
        drop(unknown);
    }

    #[test]
    fn there_are_as_many_connections_as_replicas_and_those_that_serve_are_not_ended() {
        let behind = Behind::default();
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(behind.want(&names(&[])), 1);
        assert_eq!(behind.want(&names(&["a", "b", "c"])), 2);
        assert!(!behind.drop_surplus());
        assert_eq!(behind.want(&names(&["a"])), 0);
        assert_eq!([(); 3].map(|()| behind.drop_surplus()), [true, true, false]);
        assert_eq!(behind.want(&names(&["a", "b"])), 1);
    }

    #[test]
    fn a_connection_to_a_replica_that_leaves_takes_no_place_of_the_next_one() {
        let behind = behind(&["a"]);
        let leaves = behind.take("a").unwrap();
        assert_eq!(behind.want(&BTreeSet::from(["b".to_owned()])), 1);
        let _next = behind.take("b").unwrap();
        assert!(!behind.drop_surplus());
        drop(leaves);
        assert!(behind.drop_surplus(), "its own ends with it");
    }

    #[test]
    fn where_nobody_is_known_every_connection_stays() {
        let behind = behind(&[]);
        let all: Vec<_> = ["a", "a"].map(|name| behind.take(name).unwrap()).into();
        assert_eq!(all.len(), 2);
    }
}
