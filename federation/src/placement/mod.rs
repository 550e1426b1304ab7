//! Where workloads run: filter → score → divide (pure), then a safe way from what is to what should be (pure), then objects.
//!
//! ```text
//!   Bundle + policy ─→ model::Demand ┐
//!   members' facts ──→ model::Member ┴→ solve ─→ target ─→ transition ─→ what each member is told
//! ```
//!
//! [`solve()`] and [`transition()`] know no clock and no client; the controller gives them what they need and writes what they say.

mod controller;
pub mod divide;
mod foresee;
mod gather;
pub mod model;
pub mod render;
pub mod score;
pub mod shards;
pub mod solve;
mod status;
mod tell;
pub mod transition;
mod waves;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use controller::Placement;
pub use foresee::{Foreseen, World, foresee};
pub(crate) use gather::check;
pub use model::{Demand, Member, Resources, Standing};
pub use solve::{Verdict, solve};
pub use transition::{Assigned, Seen, transition};
