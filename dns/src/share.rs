//! What one party may have of the slow way, so that a flood for one leaves room for the others.
//!
//! In: queries that are no hits. Out: a [`Pass`] for each that may go on, held until it is answered; none when the party has as much as
//! it may: the newest is shed, since the others are nearer to their answer. A counter; nothing waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many of a party's queries are on the slow way, and may be.
#[derive(Debug)]
pub(crate) struct Share {
    taken: AtomicUsize,
    max: usize,
}

/// Leave to go the slow way; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Share>);

impl Share {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// A pass, while no more than one of `part` are taken of what there is.
    pub(crate) fn pass(self: &Arc<Self>, part: usize) -> Option<Pass> {
        let pass = Pass(Arc::clone(self));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // Dropped, and so given back, when it is one too many.
        (before < self.max / part).then_some(pass)
    }

    /// Passes that are out.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_bounded_and_what_is_given_back_is_there_again() {
        let share = Share::new(8);
        let mut held: Vec<Pass> = (0..20).filter_map(|_| share.pass(2)).collect();
        assert_eq!((held.len(), share.taken()), (4, 4));
        held.extend((0..20).filter_map(|_| share.pass(1)));
        assert_eq!((held.len(), share.pass(2).is_none()), (8, true));
        held.truncate(3);
        assert!(share.pass(2).is_some() && share.taken() == 3);
        drop(held);
        assert_eq!(share.taken(), 0);
    }
}
