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

mod gate;
pub mod registry;

pub use gate::{Door, Gate, Gated, Outward};
