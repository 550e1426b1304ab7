//! What a request must be for a rule to take it, and which of several rules does. Pure.
//!
//! In: matches as written. Out: compiled ones, and their order. Source: Gateway API, `HTTPRouteRule.matches` (precedence). Where the API leaves
//! a choice: regular expressions must match the whole value and stand between exact paths and prefixes; of a repeated query
//! parameter the first counts; of repeated headers the values joined by commas.

mod expressions;
mod outline;

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::sync::{Arc, LazyLock};

use atoll_api::ingress::BEGINS;
use atoll_api::kinds::gateway::{GRPCRouteMatch, HTTPRouteMatch, NamedMatch};
use http::{HeaderMap, HeaderName, Method, request::Parts};
use regex::{Regex, RegexBuilder};

/// A compiled expression is at most this large.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// And counts for at least so much.
const REGEX_BYTES_LEAST: usize = 4 * 1024;

/// What a path must be.
#[derive(Debug)]
pub(crate) enum PathMatch {
    Exact(String),
    /// Without a slash at its end; empty: every path.
    Prefix(String),
    Regex(Arc<Regex>),
    /// What it begins with, segments or not.
    Begins(String),
    /// The last of two segments: a gRPC method of any service.
    Method(String),
    /// What an expression of that length begins with, which is not compiled.
    Outline {
        begin: String,
        length: usize,
    },
}

/// What a value must be.
#[derive(Debug)]
pub(crate) enum ValueMatch {
    Exact(String),
    Regex(Arc<Regex>),
    /// That there is one.
    Any,
}

/// A request as matches look at it.
pub(crate) trait Asking {
    /// Its path.
    fn path(&self) -> &str;
    /// What follows the question mark; empty where there is none.
    fn query(&self) -> &str;
    /// Its method.
    fn method(&self) -> &str;
    /// The values of a header as one.
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, str>>;
}

impl Asking for Parts {
    fn path(&self) -> &str {
        self.uri.path()
    }

    fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        header(&self.headers, name)
    }
}

/// What a request must be; all parts must hold.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, ValueMatch)>,
    pub(crate) query: Vec<(String, ValueMatch)>,
}

impl Match {
    /// Compiles a match.
    ///
    /// # Errors
    /// What can't be compiled, for the route's status.
    pub(crate) fn compile(written: &HTTPRouteMatch) -> Result<Self, String> {
        let method = written.method.as_deref().map(|m| m.parse().map_err(|_| format!("method `{m}` is none")));
        let headers = headers(&written.headers)?;
        let mut query: Vec<(String, ValueMatch)> = Vec::new();
        for m in &written.query_params {
            if query.iter().all(|(seen, _)| *seen != m.name) {
                query.push((m.name.clone(), value(m)?));
            }
        }
        Ok(Self { path: path(written)?, method: method.transpose()?, headers, query })
    }

    /// Compiles a match of gRPC calls.
    ///
    /// # Errors
    /// As [`Match::compile`].
    pub(crate) fn compile_grpc(written: &GRPCRouteMatch) -> Result<Self, String> {
        let headers = headers(&written.headers)?;
        Ok(Self { path: call(written)?, method: None, headers, query: Vec::new() })
    }

    /// To be shared. What takes every request is there once: most routes have nothing else.
    pub(crate) fn shared(self) -> Arc<Self> {
        static EVERY: LazyLock<Arc<Match>> = LazyLock::new(|| Arc::new(Match::every()));
        if self.is_every() { Arc::clone(&EVERY) } else { Arc::new(self) }
    }

    fn every() -> Self {
        Self { path: PathMatch::Prefix(String::new()), method: None, headers: Vec::new(), query: Vec::new() }
    }

    fn is_every(&self) -> bool {
        let any_path = matches!(&self.path, PathMatch::Prefix(prefix) if prefix.is_empty());
        any_path && self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    /// Whether `request` is meant.
    pub(crate) fn takes(&self, request: &impl Asking) -> bool {
        self.path.takes(request.path())
            && self.method.as_ref().is_none_or(|m| m.as_str() == request.method())
            && self.headers.iter().all(|(name, want)| request.header(name).is_some_and(|v| want.takes(&v)))
            && self.query.iter().all(|(name, want)| parameter(request.query(), name).is_some_and(|v| want.takes(&v)))
    }

    /// Which of two takes precedence: the smaller.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }

    fn key(&self) -> (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>) {
        let (kind, length) = match &self.path {
            PathMatch::Exact(path) => (0, path.len()),
            PathMatch::Regex(regex) => (1, regex.as_str().len()),
            PathMatch::Outline { length, .. } => (1, *length),
            PathMatch::Prefix(prefix) if prefix.is_empty() => (3, 0),
            // Of two that are the same the one that ends with a segment is the narrower.
            PathMatch::Prefix(prefix) => (2, prefix.len() * 2 + 1),
            PathMatch::Begins(begin) => (2, begin.len() * 2),
            PathMatch::Method(_) => (2, 0),
        };
        (kind, Reverse(length), self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    /// The prefix that was matched, for filters that replace it.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match &self.path {
            PathMatch::Prefix(prefix) => Some(prefix),
            _ => None,
        }
    }
}

impl PathMatch {
    /// Whether `path` is meant.
    pub(crate) fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(path),
            Self::Begins(begin) | Self::Outline { begin, .. } => path.starts_with(begin.as_str()),
            Self::Method(method) => {
                path.rsplit_once('/').is_some_and(|(service, last)| last == method && service.len() > 1)
            }
        }
    }
}

impl ValueMatch {
    fn takes(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
            Self::Any => true,
        }
    }
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            PathMatch::Exact(path) => write!(f, "path = {path}")?,
            PathMatch::Prefix(prefix) => write!(f, "path below {prefix}/")?,
            PathMatch::Regex(regex) => write!(f, "path ~ {regex}")?,
            PathMatch::Begins(begin) | PathMatch::Outline { begin, .. } => write!(f, "path {begin}…")?,
            PathMatch::Method(method) => write!(f, "method {method} of any service")?,
        }
        if let Some(method) = &self.method {
            write!(f, ", method {method}")?;
        }
        let (headers, query) = (self.headers.iter().map(|(n, _)| n.as_str()), self.query.iter().map(|(n, _)| &**n));
        for (word, names) in [("header", headers.collect::<Vec<_>>()), ("query", query.collect())] {
            for name in names {
                write!(f, ", {word} {name}")?;
            }
        }
        Ok(())
    }
}

fn path(written: &HTTPRouteMatch) -> Result<PathMatch, String> {
    let path = written.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    match path.match_type.as_deref() {
        None | Some("PathPrefix") => Ok(PathMatch::Prefix(value.trim_end_matches('/').to_owned())),
        Some("Exact") => Ok(PathMatch::Exact(value)),
        Some("RegularExpression") => Ok(PathMatch::Regex(regex(&value)?)),
        Some(BEGINS) => Ok(PathMatch::Begins(value)),
        Some(other) => Err(format!("path match type `{other}` is unknown")),
    }
}

/// `/service/method`, as gRPC calls have it.
fn call(written: &GRPCRouteMatch) -> Result<PathMatch, String> {
    let call = written.method.clone().unwrap_or_default();
    match (call.match_type.as_deref(), call.service, call.method) {
        (_, None, None) => Ok(PathMatch::Prefix(String::new())),
        (None | Some("Exact"), Some(service), Some(method)) => Ok(PathMatch::Exact(format!("/{service}/{method}"))),
        (None | Some("Exact"), Some(service), None) => Ok(PathMatch::Prefix(format!("/{service}"))),
        (None | Some("Exact"), None, Some(method)) => Ok(PathMatch::Method(method)),
        (Some("RegularExpression"), service, method) => {
            // Each alone first: an error is to quote what is written.
            for written in service.iter().chain(&method) {
                regex(written)?;
            }
            let part = |part: Option<String>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{part})"));
            Ok(PathMatch::Regex(regex(&format!("/{}/{}", part(service), part(method)))?))
        }
        (Some(other), ..) => Err(format!("method match type `{other}` is unknown")),
    }
}

/// "only the first entry with an equivalent name MUST be considered"
fn headers(written: &[NamedMatch]) -> Result<Vec<(HeaderName, ValueMatch)>, String> {
    let mut headers: Vec<(HeaderName, ValueMatch)> = Vec::new();
    for m in written {
        let name: HeaderName = m.name.parse().map_err(|_| format!("header name `{}` is none", m.name))?;
        if headers.iter().all(|(seen, _)| *seen != name) {
            headers.push((name, value(m)?));
        }
    }
    Ok(headers)
}

fn value(written: &NamedMatch) -> Result<ValueMatch, String> {
    match written.match_type.as_deref() {
        None | Some("Exact") => Ok(ValueMatch::Exact(written.value.clone())),
        Some("RegularExpression") => Ok(ValueMatch::Regex(regex(&written.value)?)),
        Some(other) => Err(format!("match type `{other}` of `{}` is unknown", written.name)),
    }
}

/// An expression that a whole value is to match.
fn whole(written: &str) -> String {
    format!("^(?:{written})$")
}

fn regex(written: &str) -> Result<Arc<Regex>, String> {
    expressions::known(written, compile)
}

fn compile(written: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&whole(written)).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| format!("regular expression `{written}`: {error}"))
}

/// What an expression takes compiled, in bytes: the least power of two in which it can be; nothing where it is refused.
pub(crate) fn regex_bytes(written: &str) -> usize {
    expressions::bytes(written, measured)
}

fn measured(written: &str) -> usize {
    let whole = whole(written);
    let sizes = std::iter::successors(Some(REGEX_BYTES_LEAST), |size| Some(size * 2));
    let mut sizes = sizes.take_while(|size| *size <= REGEX_BYTES_MAX);
    sizes.find(|size| RegexBuilder::new(&whole).size_limit(*size).build().is_ok()).unwrap_or_default()
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    let first = values.next()?;
    let rest: Vec<_> = values.collect();
    Some(if rest.is_empty() { first } else { format!("{first},{}", rest.join(",")).into() })
}

/// The first value of a query parameter, decoded as forms write it.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| decode(key) == name).map(|(_, value)| decode(value))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
