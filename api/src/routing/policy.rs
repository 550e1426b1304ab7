//! The table of policies, and what a row must offer.
//!
//! In: a step as written. Out: a [`Route`]. A row that can't work yet is refused with its reason, never ignored.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Asker, Candidate, failover, geofence, latency, nearest, sticky, weighted};
use crate::kinds::Step;

/// One step of a chain: narrows or orders the clusters of one tier.
pub trait Route: fmt::Debug + Send + Sync {
    /// Splits `tier` (indices into `candidates`) into tiers, best first. Whoever is left out is not asked at all.
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], tier: Vec<usize>) -> Vec<Vec<usize>>;

    /// What of the question it goes by, beside the asker's place. One that names something leaves tiers of one cluster each.
    fn key(&self) -> Key {
        Key::Place
    }

    /// Whether it says itself which clusters stand by.
    fn ranks_roles(&self) -> bool {
        false
    }
}

/// What a choice depends on, beside where the asker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Key {
    /// Nothing.
    #[default]
    Place,
    /// The remainder of [`Asker::dice`] by this number, and nothing else of it: so many variants of an answer are all there are.
    Slots(u16),
    /// [`Asker::client`].
    Client,
}

/// A step, or why it was refused.
pub type Parsed = Result<Box<dyn Route>, BadPolicy>;

/// A row of the table.
pub struct Policy {
    /// What a step calls it.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Parses a step's parameters.
    pub parse: fn(&Map<String, Value>) -> Parsed,
}

/// Every policy that a TrafficPolicy may name.
pub const POLICIES: &[Policy] = &[
    Policy {
        name: "failover",
        help: "groups of clusters, the next only when the one before can't",
        parse: failover::parse,
    },
    Policy {
        name: "geofence",
        help: "only these clusters, nobody else, for askers from these regions",
        parse: geofence::parse,
    },
    Policy {
        name: "nearest",
        help: "own cluster, then zone, region, neighbouring regions, distance",
        parse: nearest::parse,
    },
    Policy { name: "weighted", help: "one cluster by weight, each question anew", parse: weighted::parse },
    Policy {
        name: "sticky",
        help: "the same client the same cluster, by weight, moved only when it goes",
        parse: sticky::parse,
    },
    Policy {
        name: "latency",
        help: "by the round-trip time measured from the asker's region, else the nearest",
        parse: latency::parse,
    },
];

/// Why a strategy was refused. The writer is at fault; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// No row has that name.
    #[error("policy `{0}`: unknown, there are {names}", names = POLICIES.iter().map(|p| p.name).collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// The row does not take these parameters.
    #[error("policy `{policy}`: {why}")]
    Parameters {
        /// The row.
        policy: &'static str,
        /// What is wrong with them.
        why: String,
    },
}

/// Parses one step through the table.
pub(super) fn parse(step: &Step) -> Result<(&'static str, Box<dyn Route>), BadPolicy> {
    let row = POLICIES.iter().find(|p| p.name == step.policy);
    let row = row.ok_or_else(|| BadPolicy::Unknown(step.policy.clone()))?;
    Ok((row.name, (row.parse)(&step.parameters)?))
}

/// Reads the parameters of `policy` into its own type.
pub(super) fn read<T: DeserializeOwned>(policy: &'static str, parameters: &Map<String, Value>) -> Result<T, BadPolicy> {
    serde_json::from_value(Value::Object(parameters.clone())).map_err(|e| bad(policy, e.to_string()))
}

/// A refusal of `policy`'s parameters.
pub(super) fn bad(policy: &'static str, why: impl Into<String>) -> BadPolicy {
    BadPolicy::Parameters { policy, why: why.into() }
}
