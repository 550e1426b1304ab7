//! The demo members of `atoll up`: everything that a Kubernetes cluster shows to the outside, in one process, on loopback.
//!
//! ```text
//!   API server (embedded) ◀── controllers ──▶ pods: echo backends, each with its own loopback address
//!        ▲                        │ image ◀── registry (OCI, in memory)
//!        └── DNS ◀── Services, EndpointSlices
//!   everything that listens stands behind one gate: `break` shuts it, `heal` opens it
//! ```
//!
//! In: a member's name, index and nodes. Out: a [`kube::Client`], addresses, a switch to break it. Never: a file, a privilege, a
//! process, anything but loopback.

mod bound;
mod controllers;
mod dns;
mod echo;
mod error;
mod gate;
mod image;
mod member;
mod network;
mod objects;
pub mod registry;
mod serve;

pub use error::Error;
pub use gate::{Door, Gate, Gated, Outward};
pub use member::{Member, MemberSpec};
pub use network::{INDEX_MAX, Network};
pub use objects::REGISTRY_SECRET;
