//! The topology: everything that DNS and gateway need, folded from objects and reports into one versioned set of facts.
//!
//! ```text
//!   objects ─┐
//!   sessions ├─► fold (pure) ─► generation n+1 ─► Feed (deltas), watch in process, sites for agents
//!   sites   ─┘
//! ```

mod checks;
mod fold;
mod publish;
mod serials;
mod sites;

pub(crate) use fold::{Export, exports};
pub use publish::Published;
pub(crate) use publish::Publisher;
pub(crate) use sites::{Said, Sites};
