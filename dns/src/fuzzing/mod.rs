//! Where fuzzers come in: what strangers send, straight to the functions that read it. Nothing else uses it.
//!
//! ```text
//!   octets ──┬── fast, slow ─────────── a responder over a made-up federation (stage) ──► a reply by the rules, or none
//!            ├── stream ─────────────── what stands around messages ──► read by the rules, or refused
//!            ├── translation, upstream ─ what a member or a resolver answered ──► nothing that it may not say
//!            ├── octets ─────────────── what a member answered, carried over unparsed ──► as if it had been parsed
//!            └── update, zone_file ──── a zone's next content ──► lawful, and the same again after being stored
//! ```
//!
//! In: octets. Out: nothing; a rule that does not hold is a panic. `fuzz/` has a program for each row of [`TARGETS`], and
//! `dns/tests/seeds.rs` plays the seeds that are committed there.

mod carried;
mod content;
mod packets;
mod replies;
mod stage;
mod streams;

pub use carried::octets_over;
#[cfg(test)]
pub(crate) use carried::{alike, alike_of_address};
pub use content::{update, zone_file};
pub use packets::{fast, slow};
pub use replies::{translation, upstream};
#[cfg(test)]
pub(crate) use stage::responder;
pub use streams::stream;

/// Takes octets; a rule that does not hold is a panic.
pub type Door = fn(&[u8]);

/// What can be fuzzed: the name of the folder of its seeds, the function.
pub const TARGETS: &[(&str, Door)] = &[
    ("fast", fast),
    ("slow", slow),
    ("stream", stream),
    ("translation", translation),
    ("octets", octets_over),
    ("update", update),
    ("zone_file", zone_file),
    ("upstream", upstream),
];
