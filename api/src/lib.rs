//! The language of Atoll: names, kinds, facts, topology, health and routing rules.
//!
//! ```text
//!   kinds (what people write)      facts (what parts tell each other)
//!          \                        /
//!           topology  (one versioned snapshot of everything a data plane needs)
//!                |
//!   health (whom to believe) → routing (which clusters, in which order)
//! ```
//!
//! Everything here is pure: no clock, no randomness, no client, no log; time and keys are arguments. Remote input is
//! parsed into checked types and never panics.

pub mod copy;
pub mod duration;
pub mod facts;
pub mod guard;
pub mod health;
pub mod ingress;
pub mod kinds;
pub mod names;
pub mod ordered;
pub mod provider;
pub mod quantity;
pub mod rdata;
pub mod records;
pub mod rendezvous;
pub mod repositories;
pub mod reverse;
pub mod routing;
pub mod selector;
pub mod token;
pub mod topology;
pub mod update;
pub mod zonefile;
