//! Where fuzzers come in: what strangers send and people write, straight to the functions that read it. Nothing else uses it.
//!
//! ```text
//!   octets ──┬── head ────────── a request's head ──► one framing, or refused; what is written of it reads the same again
//!            ├── chunks ──────── a chunked body ────► the same however it comes; what is written of it reads the same again
//!            ├── proxy ───────── a balancer's header ► its own octets and no more; the client that it names
//!            ├── hello ───────── a TLS hello ───────► a name, and every octet given again
//!            ├── matching ────── a rule and a head ──► taken or not, on the short way as on the long one
//!            └── annotations ─── an Ingress ────────► the same routes each time; what protects and is not honoured closes
//! ```
//!
//! In: octets. Out: nothing; a rule that does not hold is a panic. `fuzz/` has a program for each row of [`TARGETS`], and
//! `gateway/tests/seeds.rs` plays the seeds that are committed there.

mod messages;
mod openings;
mod rules;

pub use messages::{chunks, head};
pub use openings::{hello, proxy};
pub use rules::{annotations, matching};

/// Takes octets; a rule that does not hold is a panic.
pub type Door = fn(&[u8]);

/// What can be fuzzed: the name of the folder of its seeds, the function.
pub const TARGETS: &[(&str, Door)] = &[
    ("head", head),
    ("chunks", chunks),
    ("proxy", proxy),
    ("hello", hello),
    ("matching", matching),
    ("annotations", annotations),
];
