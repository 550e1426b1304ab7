//! Compiled expressions, each once: what is still in a table, or was refused lately, is not compiled again by the next build of everything.
//!
//! In: an expression as it is written. Out: the same compiled expression for whoever writes the same. One namespace may have as many as take
//! seconds to compile, and every change of everybody waits for a build.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use regex::Regex;

/// Expressions that are remembered at least; beyond that those that nobody has any more are forgotten, and refusals.
const KNOWN_LEAST: usize = 16_384;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Known {
    all: HashMap<Box<str>, Result<Weak<Regex>, Box<str>>>,
    /// What was left when it was looked through last.
    left: usize,
    /// What they take, whoever has them.
    bytes: HashMap<Box<str>, usize>,
}

fn lock() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The expression, compiled by `compile` where nobody has it.
pub(super) fn known(written: &str, compile: impl FnOnce(&str) -> Result<Regex, String>) -> Result<Arc<Regex>, String> {
    match lock().all.get(written) {
        Some(Ok(known)) => {
            if let Some(known) = known.upgrade() {
                return Ok(known);
            }
        }
        Some(Err(why)) => return Err(why.to_string()),
        None => {}
    }
    let compiled = compile(written).map(Arc::new);
    let mut known = lock();
    if known.all.len() >= KNOWN_LEAST.max(known.left * 2) {
        known.all.retain(|_, it| it.as_ref().is_ok_and(|known| known.strong_count() > 0));
        known.left = known.all.len();
    }
    let kept = compiled.as_ref().map(Arc::downgrade).map_err(|why| why.as_str().into());
    known.all.insert(written.into(), kept);
    compiled
}

/// What an expression takes compiled, found out by `measure` where nobody has lately.
pub(super) fn bytes(written: &str, measure: impl FnOnce(&str) -> usize) -> usize {
    if let Some(bytes) = lock().bytes.get(written) {
        return *bytes;
    }
    let bytes = measure(written);
    let mut known = lock();
    if known.bytes.len() >= KNOWN_LEAST {
        known.bytes.clear();
    }
    known.bytes.insert(written.into(), bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_expression_is_compiled_once_for_as_long_as_somebody_has_it_and_refused_once() {
        let count = Cell::new(0);
        let ask = |written: &str| {
            known(written, |written| {
                count.set(count.get() + 1);
                Regex::new(written).map_err(|error| error.to_string())
            })
        };
        let first = ask("^known-[0-9]+$").unwrap();
        let again = ask("^known-[0-9]+$").unwrap();
        assert!(Arc::ptr_eq(&first, &again) && again.is_match("known-7"));
        assert_eq!(count.get(), 1);
        drop((first, again));
        assert!(ask("^known-[0-9]+$").is_ok());
        assert_eq!(count.get(), 2, "nobody had it any more");
        let refused = [ask("(known"), ask("(known")].map(Result::unwrap_err);
        assert_eq!((refused[0] == refused[1], count.get()), (true, 3));
    }
}
