//! Image requests: from the wish to the copy, by votes. The hub never copies and holds no credentials for it.
//!
//! ```text
//!   ReplicationRequest ─→ check (receiving agent) ─→ votes ─→ copy (receiving agent checks the votes again) ─→ done
//! ```
//!
//! [`machine`] decides (pure); the controller reads objects and reports, writes status and hands jobs to sessions.

mod controller;
pub mod machine;

pub(crate) use controller::Approvals;
pub use machine::{Case, Outcome, step};
