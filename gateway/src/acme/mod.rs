//! Certificates by ACME: ordered by the leader, proven by every replica, kept as Secrets, renewed in time.
//!
//! ```text
//!   table ─► wanted (names of listeners) ─► session (leader alone) ─► due? ─► order ─► account ─► CA
//!                                              │                               │
//!                              standing ◄──────┤                     challenge (ConfigMap), or record (DNSEndpoint)
//!                    (conditions, Events)      └─► ledger (Secret)             │
//!                                                                              ▼
//!                                  CA ─► /.well-known/acme-challenge/… ◄── answers (every replica, stated to the hub)
//! ```
//!
//! In: Gateways, ListenerSets and Ingresses that ask for it, the topology, the Lease. Out: Secrets of type kubernetes.io/tls, and what
//! became of each. The CA is told to look only once every live replica answers, or every DNS server. A Secret that was not made here is never written. Source: RFC
//! 8555 (ACME), RFC 9773 (renewal information).

mod account;
mod answers;
mod challenge;
mod client;
mod due;
mod failure;
mod key;
mod leader;
mod ledger;
mod object;
mod order;
mod record;
mod renewals;
mod secret;
mod session;
mod settings;
mod standing;
mod wanted;

pub(crate) use answers::{Answers, PATH, follow};
pub(crate) use leader::{Acme, run};
pub use settings::{Binding, BindingKey, KeyType, Proving, Settings};
pub(crate) use standing::{CONDITION, Kind as Asker, Standing};
pub(crate) use wanted::{Ordered, Wanted, asks, wanted};

/// What an object is here: `account`, `order`, `challenge`, `certificate`.
pub(crate) const LABEL: &str = "atoll.dev/acme";
/// The Lease of the fleet that an order is of.
const FLEET_LABEL: &str = "atoll.dev/acme-fleet";
/// Which order a challenge is of.
const ORDER_LABEL: &str = "atoll.dev/acme-order";
/// By whom a certificate was issued.
const DIRECTORY: &str = "atoll.dev/acme-directory";
