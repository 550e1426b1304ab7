//! Answers of status 1xx on their way to the client, as soon as an endpoint gives them: Early Hints, Processing (RFC 9110 §15.2, RFC 8297).
//!
//! In: heads as an endpoint that speaks HTTP/1.1 says them. Out: the same without what is between neighbours, for whoever writes to the client
//! and looks here while the answer is not there yet: both run in one task, so that nobody is woken. Not 100, which we answer ourselves; not
//! over HTTP/2, whose library has no way to say them. Bound: [`EARLY_MAX`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};

use super::headers::strip;

/// So many wait to be written.
const EARLY_MAX: usize = 8;

/// The heads that wait.
#[derive(Debug, Default)]
pub(crate) struct Early {
    are_some: AtomicBool,
    heads: Mutex<Vec<(StatusCode, HeaderMap)>>,
}

impl Early {
    /// Adds one; beyond the bound it is dropped.
    pub(crate) fn put(&self, status: StatusCode, mut headers: HeaderMap) {
        strip(&mut headers);
        // It has no content (RFC 9110 §15.2).
        headers.remove(http::header::CONTENT_LENGTH);
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() < EARLY_MAX {
            heads.push((status, headers));
            self.are_some.store(true, Ordering::Release);
        }
    }

    /// Whether any wait.
    pub(crate) fn are_some(&self) -> bool {
        self.are_some.load(Ordering::Acquire)
    }

    /// Takes all of them.
    pub(crate) fn take(&self) -> Vec<(StatusCode, HeaderMap)> {
        if !self.are_some.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
