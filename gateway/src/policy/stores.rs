//! What a filter keeps from one set of policies to the next: counts, buckets, keys, kept answers. The old set is there until the new one is
//! made, so what both have goes on, and what nobody has any more goes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// States by whose they are.
#[derive(Default)]
pub(crate) struct Stores(Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>);

impl Stores {
    /// The state of that name, made where there is none.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, id: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(id).and_then(Weak::upgrade).and_then(|state| state.downcast::<T>().ok());
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            let weak: Weak<T> = Arc::downgrade(&made);
            all.retain(|_, state| state.strong_count() > 0);
            all.insert(id.to_owned(), weak);
            made
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_lives_as_long_as_somebody_has_it() {
        let stores = Stores::default();
        let first = stores.keep("a", || 1_u32);
        assert_eq!(*stores.keep("a", || 2_u32), 1);
        assert_eq!(*stores.keep("b", || 3_u32), 3);
        drop(first);
        assert_eq!(*stores.keep("a", || 4_u32), 4);
    }
}
