//! The copy engine: brings images from one registry to another, run by the agent on the receiving side.
//!
//! ```text
//!  images ── resolve ──▶ roots ── closure ──▶ manifests, blobs, one digest over all   (what an approval binds)
//!                                                  │
//!                   what the destination has ── plan ──▶ copies, mounts, manifests, tags          (pure)
//!                                                  │
//!        source ── feed (hashed, resumed) ──▶ blob ──▶ destination ── verify ──▶ tag
//! ```
//!
//! In: endpoints, a connector for each, frozen roots. Out: a report, or an error that names registry, repository and reference.
//! Never: an approval (the agent checks that first), a socket of its own, a whole blob in memory, a tag before everything below it
//! was read back. Source: OCI distribution specification 1.1, OCI image specification 1.1.

pub mod backend;
mod blob;
mod closure;

mod audit;
mod copy;
mod endpoint;
mod engine;
mod error;
mod feed;
pub mod manifest;
mod name;
pub mod plan;
mod progress;
mod retry;

pub use atoll_reach::Connect;
pub use audit::audit;
pub use closure::{Blob, Closure, Node, closure_digest};
pub use copy::{End, Job, Limits, Report, closure, copy, missing, resolve};
pub use endpoint::{Credentials, Endpoint, Root};
pub use engine::{Dial, Engine};
pub use error::{At, Error, Why};
pub use name::{Digest, Hasher, ImageRef, NameError, check_repository, check_tag};
pub use progress::{Phase, Progress};
pub use retry::Retry;
