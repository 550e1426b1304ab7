//! Scorer `capacity`: how much of the demand the cluster could hold.

use super::super::model::{Demand, Member};

/// 100 where all of it fits, in proportion below.
pub(super) fn score(demand: &Demand, member: &Member) -> u32 {
    let wanted = demand.replicas.unwrap_or(1).max(1);
    let room = member.free.holds(&demand.each).clamp(0, wanted);
    u32::try_from(i64::from(room) * 100 / i64::from(wanted)).unwrap_or(0)
}
