//! What is done to requests and answers. A new filter is one file and one row of [`FILTERS`].
//!
//! In: a filter as a route writes it. Out: a [`Filter`] that changes heads, or answers itself. A filter that can't be made is never skipped: its
//! rule answers with an error.

mod cors;
mod headers;
mod mirror;
mod redirect;
mod rewrite;
#[cfg(test)]
mod tests;

use atoll_api::kinds::gateway::{BackendObjectReference, HTTPRouteFilter};
use bytes::Bytes;
use http::{HeaderValue, Response, request, response};

use crate::table::Problem;

/// How a request was matched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matched<'a> {
    /// The path prefix that was matched, without a slash at its end.
    pub(crate) prefix: Option<&'a str>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The host asked for.
    pub(crate) host: &'a str,
    /// The listener's port.
    pub(crate) port: u16,
}

/// Where copies of requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The upstream's index.
    pub(crate) upstream: usize,
    /// Of so many requests …
    pub(crate) of: u32,
    /// … so many.
    pub(crate) copies: u32,
}

/// A filter, ready to work.
pub(crate) trait Filter: std::fmt::Debug + Send + Sync {
    /// Changes the head of a request, or answers it.
    fn request(&self, _head: &mut request::Parts, _matched: &Matched<'_>) -> Option<Response<Bytes>> {
        None
    }

    /// Changes the head of the answer to a request from `origin`.
    fn response(&self, _head: &mut response::Parts, _origin: Option<&HeaderValue>) {}

    /// Where a copy of the request goes.
    fn mirror(&self) -> Option<Mirror> {
        None
    }
}

/// What filters are made with: leads references to upstreams, and notes those that lead nowhere.
pub(crate) trait Resolve {
    /// The upstream's index.
    fn resolve(&mut self, target: &BackendObjectReference) -> Option<usize>;
}

/// A filter, or nothing where a reference leads nowhere (which is noted), or why it was refused.
pub(crate) type Made = Result<Option<Box<dyn Filter>>, Problem>;

/// A row of the table.
pub(crate) struct Row {
    /// The type as routes write it.
    pub(crate) name: &'static str,
    /// Makes a filter; `prefixed` where all matches of the rule are by path prefix.
    pub(crate) make: fn(written: &HTTPRouteFilter, prefixed: bool, resolve: &mut dyn Resolve) -> Made,
}

/// Every filter that a rule may name.
pub(crate) const FILTERS: &[Row] = &[
    Row { name: "RequestHeaderModifier", make: headers::request },
    Row { name: "ResponseHeaderModifier", make: headers::response },
    Row { name: "RequestRedirect", make: redirect::make },
    Row { name: "URLRewrite", make: rewrite::make },
    Row { name: "RequestMirror", make: mirror::make },
    Row { name: "CORS", make: cors::make },
];

/// Makes a filter through the table.
pub(crate) fn make(written: &HTTPRouteFilter, prefixed: bool, resolve: &mut dyn Resolve) -> Made {
    let row = FILTERS.iter().find(|row| row.name == written.filter_type).ok_or_else(|| {
        let names = FILTERS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        refused(format!("filter `{}`: unknown, there are {names}", written.filter_type))
    })?;
    (row.make)(written, prefixed, resolve)
}

fn refused(message: impl Into<String>) -> Problem {
    Problem::new("UnsupportedValue", message)
}

fn absent(name: &str) -> Problem {
    refused(format!("filter `{name}`: its settings are absent"))
}
