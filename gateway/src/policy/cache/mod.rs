//! A shared cache of answers, as RFC 9111 has it.
//!
//! ```text
//!   request ─► store.find ─► rules::judge ─┬─ fresh, or stale and let ─► given
//!                                          └─ else ─► flight (one asks, the others wait) ─► backend ─► fill ─► store
//! ```
//!
//! [`control`] reads what both sides say, [`rules`] decides, [`store`] keeps, [`fill`] takes a body in as it passes;
//! [`question`] and [`answered`] are the two ways of a request. Bounded in bytes: what is
//! kept, one answer, and what is being taken in. Each replica keeps for itself.

pub(crate) mod answered;
pub(crate) mod control;
pub(crate) mod fill;
pub(crate) mod question;
pub(crate) mod rules;
#[cfg(test)]
mod rules_tests;
pub(crate) mod store;

pub(crate) use control::Control;
pub(crate) use store::{Flight, Kept, Store, Taken};
