//! Scores of clusters where only some can be chosen: the table of scorers.
//!
//! To add one: a file here with a function of [`Scorer`]'s shape, and a row. Scores are summed; equal sums are ordered by the
//! demand's own hash, so that different demands don't all take the same cluster.

mod capacity;
mod stay;

use super::model::{Demand, Member};

/// One scorer.
pub struct Scorer {
    /// Its name, in explanations.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// 0 (worst) to 100 (best).
    pub score: fn(&Demand, &Member) -> u32,
}

/// The scorers.
pub const SCORERS: &[Scorer] = &[
    Scorer { name: "stay", help: "prefers clusters that already run it", score: stay::score },
    Scorer { name: "capacity", help: "prefers clusters with room for all of it", score: capacity::score },
];

/// The sum of all scorers.
pub fn total(demand: &Demand, member: &Member) -> u32 {
    SCORERS.iter().map(|s| (s.score)(demand, member)).sum()
}
