//! The same zones in Atoll, Knot, NSD and PowerDNS, the same questions: every difference is in the reviewed list, or the run fails.
//!
//! ```text
//!   seed ── zones (master files) ──► atoll, peers (programs on loopback ports)
//!      └─── queries (octets) ── lanes (UDP, TCP) ──► replies ── compare ── reviewed.yaml ── counts, or what nobody has reviewed
//! ```
//!
//! In: how many questions, a seed. Out: a [`Report`]. Replies are read here, octet by octet, by no codec of any server. A run with the same
//! seed asks the same. The list names for each entry which peers, when, what may differ, and the sentence that says why.

mod atoll;
mod chance;
mod compare;
mod data;
mod lanes;
mod layout;
mod names;
mod packet;
mod peers;
mod queries;
mod reply;
mod reviewed;
mod run;
mod signed;
mod zones;

use std::error::Error;

pub use run::{Plan, Report, run};

/// Whatever goes wrong ends the run.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
