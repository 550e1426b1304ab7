//! Hierarchical DNS: one server for the names of all members, of the federation, and of its own zones.
//!
//! ```text
//!   transport ─► client (who asks) ─► wire (given before?) ─► gate (is there room?) ─► respond ─► resolve ─► hierarchy (whose name)
//!  (stream, edns, guard)                                                   │
//!        ┌──────────────┬──────────────────┬──────────┴──────────┬────────────────┐
//!      Here           Below              Beside                 Host           Outside
//!      zones     lookup ── cache    federated: policy,     gateways of the     lookup ──► upstreams,
//!                   │               health, reach          chosen cluster      or REFUSED
//!                forward ─ dialer ─► the member's DNS
//!                   │
//!                translate (both ways)
//!
//!   topology (watch) ──► table ─┐
//!   probes (health) ────────────┴─► world, swapped whole; a query keeps the one it began with
//! ```
//!
//! Goes in: sockets, the topology as it is followed, the way into members. Comes out: answers, metrics, [`Server::explain`]. Never:
//! waits for the hub; says NXDOMAIN for a member that is down; lets a member's own domain out; asks a member for more than its names.

mod config;

mod error;

mod run;

pub mod transport;

mod stream;

mod edge;

mod guard;

mod edns;

mod respond;

mod gate;

mod road;

mod share;

mod wire;

mod authority;

mod tsig;

mod transfer;

mod update;

mod client;
mod clock;

mod resolve;

mod explain;

mod world;

mod changes;

mod table;

mod hierarchy;

mod home;

mod zones;

mod sign;

mod policy;

mod federated;

mod serve;

mod view;

mod gateways;

mod budget;

mod completion;

mod hosts;

mod geo;

mod lookup;

mod cache;

mod chain;

mod outside;

mod forward;

mod translate;

mod health;

mod checks;

mod answer;

mod prefixes;

mod kinds;

mod names;

mod arpa;

mod metrics;

mod counters;

mod labels;

mod tap;

#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod testing;

pub use config::{Ask, Caching, Config, Encrypted, Home, Limits, Rebinding, Resources, View};
pub use error::Error;
pub use geo::{Files, Octets};
pub use guard::{Rate, Secret, Secrets};
pub use run::{Server, run};
pub use tap::{Seen, Tap};
