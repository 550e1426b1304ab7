//! The hub: membership, placement, services, approvals, topology, console.
//!
//! ```text
//!   agents ══ link (mTLS) ══► sessions ─┐
//!   sites ═══ feed (mTLS) ══► sites    ─┼─► membership ─► topology ══ feed ══► DNS, gateway
//!   hub's API ── watches ──► objects   ─┘       │
//!                                               ├─► placement ─► Assignments ══ link ══► agents
//!                                               ├─► approvals ─► checks, copies ══ link ══► agents
//!                                               └─► console
//! ```
//! Controllers are level-triggered: a pass reads everything in memory, computes with pure functions, writes what differs. Everything
//! durable is an object of the hub's API, reached through [`kube::Client`] alone.

mod config;
mod error;
mod resources;

mod authority;
mod epoch;
mod lead;
pub mod tokens;

mod hub;
mod link;
mod metrics;
mod objects;
mod pulse;
mod sessions;

mod console;
mod webhook;

mod accept;
mod conditions;
mod membership;
mod services;
mod topology;
mod zones;

pub mod approvals;
pub mod placement;

pub use config::{Config, WebhookTarget};
pub use epoch::{HubFacts, pass_epochs};
pub use error::Error;
pub use hub::run;
pub use membership::{PushMember, StartPush};
pub use resources::{Answer, DataPlaneView, Hub, NoView, Resources};
pub use topology::{Published, stored_sites};
