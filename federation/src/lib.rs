//! The hub: membership, placement, services, approvals, topology, console.

pub mod approvals;
pub mod placement;
