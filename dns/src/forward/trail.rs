//! The mark on questions that we forward, by which one that comes back to us is known again. Pure.
//!
//! ```text
//!   option 65314 (local use, RFC 6891 §9):  origin: 8 octets │ path: 8 octets │ hops: 1 octet
//! ```
//!
//! In: the octets of the EDNS option. Out: who sent the question first and on which path, and how often it was forwarded since. Servers that
//! drop the option are seen through by the probes in `loops`.

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

/// The option's code, out of the range for local use.
pub(crate) const OPTION: u16 = 65_314;
/// The option's length.
pub(super) const OCTETS: usize = 17;
/// A question that was forwarded so often goes round, whoever began it.
const HOPS_MAX: u8 = 8;

/// Where a question comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trail {
    /// The instance that forwarded it first.
    pub(super) origin: u64,
    /// The path on which it did.
    pub(super) path: u64,
    hops: u8,
}

impl Trail {
    /// The trail of a question; `None` for one that comes from a client.
    pub(crate) fn of(query: &Message) -> Option<Self> {
        match query.edns.as_ref()?.option(EdnsCode::Unknown(OPTION))? {
            EdnsOption::Unknown(OPTION, octets) => Self::read(octets),
            _ => None,
        }
    }

    fn read(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; OCTETS] = octets.try_into().ok()?;
        let (origin, rest) = octets.split_first_chunk()?;
        let (path, rest) = rest.split_first_chunk()?;
        Some(Self { origin: u64::from_be_bytes(*origin), path: u64::from_be_bytes(*path), hops: *rest.first()? })
    }

    pub(super) fn octets(self) -> [u8; OCTETS] {
        let mut octets = [0; OCTETS];
        octets[..8].copy_from_slice(&self.origin.to_be_bytes());
        octets[8..16].copy_from_slice(&self.path.to_be_bytes());
        octets[16] = self.hops;
        octets
    }

    /// The trail of a question that `origin` forwards on `path` and that came with `before`.
    pub(super) fn onward(before: Option<Self>, origin: u64, path: u64) -> Self {
        match before {
            Some(trail) => Self { hops: trail.hops.saturating_add(1), ..trail },
            None => Self { origin, path, hops: 1 },
        }
    }

    /// Whether it was forwarded too often.
    pub(super) fn is_long(self) -> bool {
        self.hops >= HOPS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_keeps_its_origin_and_counts_its_hops() {
        let mut trail = Trail::onward(None, 7, 9);
        for hops in 1..HOPS_MAX {
            assert_eq!((trail.origin, trail.path, trail.hops, trail.is_long()), (7, 9, hops, false));
            assert_eq!(Trail::read(&trail.octets()), Some(trail));
            trail = Trail::onward(Some(trail), 1, 2);
        }
        assert!(trail.is_long());
        assert_eq!(Trail::read(&[0; 16]), None);
    }
}
