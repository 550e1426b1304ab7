//! The topology: everything that DNS and gateway need, folded from objects and reports into one versioned set of facts.
//!
//! ```text
//!   objects ─┐      ┌ remembered
//!   sessions ├─ ears ─► offers ─► fold (pure, part by part) ─► ledger ─► generation n+1 ─► Feed (deltas), watch in process
//!   sites   ─┘      └ checks, zones                                 └─► names that moved ─► services controller
//! ```

mod balancers;
mod checks;
mod ears;
mod fold;
mod held;
mod ledger;
mod offers;
mod publish;
mod remembered;
mod serials;
mod sites;

pub(crate) use offers::{BySet, Export, Offers};
pub use publish::Published;
pub(crate) use publish::Publisher;
pub use sites::stored_sites;
pub(crate) use sites::{Said, Sites};
