//! The embedded API server: the Kubernetes API over one redb file, or in memory.
//!
//! Good enough for `kube::Client`, watchers, kubectl and helm; the hub's own API on a laptop, the API of the demo
//! members, and the double of a member in tests. It knows the usual built-in kinds from a table and every other kind
//! from CustomResourceDefinition objects; nothing of Atoll's own kinds is known here but what `Config::stamps` says.
//! It runs no controllers but the two without which deletion means nothing (owners, namespaces).
//!
//! ```text
//! TLS socket ─ serve ─┐
//!                     ├▶ http: who? where? may they? ─▶ verbs: get list watch ◀── store: memory + history
//! kube::Client ───────┘                                 verbs: create update patch delete
//!                                                          │ prune default validate admit stamp own
//!                                                          ▼
//!                                                       store: one writer ─▶ redb ─▶ memory ─▶ watchers, sweep
//! ```

mod authority;
mod bootstrap;
mod config;
mod discovery;
mod error;
mod fields;
mod http;
mod kinds;
mod object;
mod openapi;
mod patch;
mod proto;
mod rbac;
mod refusal;
mod schema;
mod select;
mod serve;
mod server;
mod store;
mod sweep;
mod table;
mod verbs;

pub use authority::{Authority, Context, Identity, kubeconfig, kubeconfig_of};
pub use config::{Config, Stamp, Storage, User};
pub use error::Error;
pub use server::ApiServer;
