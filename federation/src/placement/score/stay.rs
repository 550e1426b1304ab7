//! Scorer `stay`: moving costs, so a cluster that already runs it goes before one that doesn't.

use super::super::model::{Demand, Member};

/// 100 where it runs already, else 0.
pub(super) fn score(demand: &Demand, member: &Member) -> u32 {
    if demand.current.get(&member.name).is_some_and(|n| *n > 0) { 100 } else { 0 }
}
