//! The gateway: one entry in front of many clusters.
//!
//! ```text
//!   watch (hub's API) ─┐                                   ┌─► status (back into the objects)
//!   topology (hub) ────┼─► build_loop ─► table::build ─────┤
//!   last good (disk) ──┘                                   └─► plane: snapshot, swapped whole
//!                                                                 │ read by every request
//!   listen ─► connection ─┬► http::server ─► answer ─► filter ─┬► choose (cluster) ─► balance (endpoint) ─► pool ─► forward ─► back
//!              (tls)      └► l4 ───────────────────────────────┘         │                    │
//!                                                                        └───── health ◄──────┘ probes and results
//! ```
//!
//! In: listeners, the topology as followed, the dialer into members, a client of the hub's API. Out: answers to requests, statuses, metrics.
//! Requests never wait for hub or API server: with both dead they go on, through restarts too.
//! A new filter is a row of `filter::FILTERS`, a new kind of route one of `kinds::KINDS`, a new kind of
//! balancer that others own one of `provider::PROVIDERS`.

mod config;
mod error;
mod run;

mod build_loop;
mod fleet;
mod ingress;
mod last_good;
mod objects;
mod quota;
mod watch;

mod attach;
mod balancer;
mod kinds;
mod names;
mod pods;
mod table;

mod foreign;
mod provider;

mod session;
mod status;

mod acme;

mod plane;

mod connection;
mod listen;
mod progress;
mod tls;

mod http;
mod http1;
mod http3;
mod l4;

mod filter;
mod policy;

mod choose;

mod balance;

mod endpoint;
mod health;
mod pool;
mod retry;

mod access;
mod explain;
mod metrics;
mod traces;
mod views;

pub mod fuzzing;
pub mod shadow;

pub use access::{ACCESS_FIELDS, AccessLog};
pub use acme::{
    Binding as AcmeBinding, BindingKey as AcmeBindingKey, KeyType as AcmeKeyType, Proving as AcmeProving,
    Settings as AcmeSettings,
};
pub use config::{Config, LastGood, Limits, NamespaceLimits, Resources};
pub use error::Error;
pub use names::NameSettings;
pub use policy::Trusted;
pub use provider::Settings as ProviderSettings;
pub use run::{Server, run};
pub use traces::TracesTo;
