//! Where a client is: from the network that a trusted forwarder names, a map of address ranges, a MaxMind database.
//!
//! ```text
//!   ECS of an allowed forwarder, else the source ── longest range (members, written, map file) ── database ── where this replica stands
//! ```
//!
//! In: octets of files, as `src/` reads them. Out: a [`Geo`], made whole and swapped whole: what does not parse is refused and the one
//! before stays. Sources: RFC 7871 (client subnet), the MaxMind DB format specification 2.0.

mod countries;
pub(crate) mod ecs;
mod map;
mod mmdb;
mod scope;
mod watch;

pub(crate) use map::Map;
#[cfg(test)]
pub(crate) use mmdb::write;
pub(crate) use mmdb::{Mmdb, Spot};
pub(crate) use scope::Borders;
pub(crate) use watch::follow;
pub use watch::{Files, Octets};

use std::sync::Arc;

/// What files say of places; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Geo {
    /// Ranges of the map file.
    pub(crate) map: Arc<Map>,
    /// The database.
    pub(crate) mmdb: Option<Arc<Mmdb>>,
}

impl Geo {
    /// Whether both were made of the same files.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.mmdb, &other.mmdb) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same && (Arc::ptr_eq(&self.map, &other.map) || self.map == other.map)
    }
}
