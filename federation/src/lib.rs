//! The hub: membership, placement, services, approvals, topology, console.

pub mod placement;
