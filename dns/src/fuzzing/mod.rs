//! Where fuzzers come in: what strangers send, straight to the functions that read it. Nothing else uses it.
//!
//! ```text
//!   octets ──┬── fast, slow ─────────── a responder over a made-up federation (stage) ──► a reply by the rules, or none
//!            ├── translation, upstream ─ what a member or a resolver answered ──► nothing that it may not say
//!            └── update, zone_file ──── a zone's next content ──► lawful, and the same again after being stored
//! ```
//!
//! In: octets. Out: nothing; a rule that does not hold is a panic. `fuzz/` has a program for each row of [`TARGETS`], and
//! `dns/tests/seeds.rs` plays the seeds that are committed there.

mod content;
mod packets;
mod replies;
mod stage;

pub use content::{update, zone_file};
pub use packets::{fast, slow};
pub use replies::{translation, upstream};
#[cfg(test)]
pub(crate) use stage::responder;

/// Takes octets; a rule that does not hold is a panic.
pub type Door = fn(&[u8]);

/// What can be fuzzed: the name of the folder of its seeds, the function.
pub const TARGETS: &[(&str, Door)] = &[
    ("fast", fast),
    ("slow", slow),
    ("translation", translation),
    ("update", update),
    ("zone_file", zone_file),
    ("upstream", upstream),
];
