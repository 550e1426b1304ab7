//! The agent of one member: the only part that touches what runs there.
//!
//! ```text
//!   token ─► enrol ─► credentials (Secret atoll-system/atoll-agent) ─► link ══ gRPC over mTLS ══ hub
//!                                                                      │  ▲
//!      member's API ─► observe ─► facts ───────────────────────────────┼──┘ heartbeats, facts, status
//!                                                                      ▼
//!      member's API ◄─ apply ◄──────────────────────────────────── desired: bundles, checks, copies, sites
//!                      copies ─► the copy engine behind a trait        │
//!      member's Services ◄─ balancers (statuses: where gateways serve them)
//!      member's own resolver ◄─ stub; node-local DNS ◄─ names (a certificate)
//!      member's pods, DNS ◄─ relay ══ HTTP/2 over mTLS ══ hub, DNS, gateways ◄┘
//! ```
//!
//! Goes in: a client of the member's API, a connector, the copy engine. Comes out: what the hub decided, carried out,
//! and what is really there. Never: listens, decides a placement, deletes what it does not own, or changes anything
//! while it can't hear the hub.

mod allow;
mod apply;
mod backoff;
mod balancers;
mod config;
mod copies;
mod credentials;
mod desired;
mod enrol;
mod error;
mod health;
mod hub;
mod link;
mod names;
mod namespace;
mod observe;
mod push;
mod relay;
mod rotate;
mod run;
mod stub;

pub use atoll_api::guard::OptIn;
pub use config::{Config, Resources};
pub use credentials::Credentials;
pub use enrol::enrol;
pub use error::AgentError;
pub use names::SECRET as NAMES_SECRET;
pub use push::push;
pub use run::run;
pub use stub::{Keep, Place, Stub, Write};
