//! What is done to requests and answers. A new filter is one file and one row of [`FILTERS`].
//!
//! Two kinds stand in the table. A *filter of a route* ([`Filter`]) is written in the route, changes heads and answers at once. A *guard*
//! ([`Guard`]) is written in a RoutePolicy (or is a route's `ExternalAuth`); it may ask others, bound or change bodies, and leaves behind what
//! is to be done on the way back ([`crate::policy::Back`]). A filter or guard that can't be made is never skipped: its requests are refused.
//!
//! How a request passes them, in `http::answer`, whatever core stands below:
//!
//! 1. `policy::normalise(&mut head)`: one form of path and header names, before anything is matched.
//! 2. `plane.trusted.client(peer, &head.headers)`: the client's address, for everything that follows; `policy::tell` writes the headers
//!    that say the same to endpoints.
//! 3. Once the rule is known: `policies.chain(listener, &rule.route, rule.name)`; where there is one, `policy::pass(&chain.guards, &mut asked)`.
//!    An answer ends it. `asked.body` may have been wrapped ([`crate::http::Upload::wrap`]).
//! 4. The route's own filters, in their order; one that has a guard ([`Filter::guard`]) is passed as those before.
//! 5. The answer: the route's filters back, then `policy::back(asked.backs, response)`, which also refusals of ours pass, once there is one.
//!
//! Guards work in the order of [`PARAMETERS`], whatever the order in which policies write them; answers pass them the other way.
//! `rate` with key `user` works after those that authenticate.

mod api_keys;
mod bandwidth;
mod basic;
mod cache;
mod cidrs;
mod client_certificate;
mod compression;
mod connections;
mod cors;
mod error_pages;
mod ext_authz;
mod ext_proc;
mod external_auth;
mod forward_auth;
mod headers;
mod hsts;
mod jwt;
mod mirror;
mod oidc;
mod path;
mod rate;
mod redirect;
mod rewrite;
mod sizes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::gateway::{BackendObjectReference, HTTPRouteFilter};
use atoll_api::kinds::route_policy::PARAMETERS;
use atoll_api::kinds::route_policy::filters::BackendRef;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request, response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::policy::Asked;
use crate::policy::peer::Peer;
use crate::policy::shares::Shares;
use crate::policy::stores::Stores;
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

/// A filter of a route, ready to work.
pub(crate) trait Filter: std::fmt::Debug + Send + Sync {
    /// Changes the head of a request, or answers it.
    fn request(&self, _head: &mut request::Parts, _matched: &Matched<'_>) -> Option<Response<Bytes>> {
        None
    }

    /// Changes the head of the answer to a request from `origin`.
    fn response(&self, _head: &mut response::Parts, _origin: Option<&HeaderValue>) {}

    /// The same of an answer of ours to a request that goes no further.
    fn refused(&self, _head: &mut response::Parts, _origin: Option<&HeaderValue>) {}

    /// Where a copy of the request goes.
    fn mirror(&self) -> Option<Mirror> {
        None
    }

    /// The guard that it is.
    fn guard(&self) -> Option<&dyn Guard> {
        None
    }
}

/// What is held while a request, a stream or packets of a client last.
pub(crate) type Permit = Box<dyn std::any::Any + Send + Sync>;

/// A filter of a RoutePolicy, ready to work.
#[async_trait]
pub(crate) trait Guard: std::fmt::Debug + Send + Sync {
    /// Looks at a request, changes it, or answers it.
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>>;

    /// One before it answered the request: what is to be done with that answer is left behind.
    fn missed(&self, _asked: &mut Asked<'_>) {}

    /// Whether a stream or packets of a client may come.
    fn stream(&self, _client: IpAddr) -> Result<Option<Permit>, &'static str> {
        Ok(None)
    }

    /// Whether it works after those that authenticate, wherever its row stands.
    fn is_late(&self) -> bool {
        false
    }
}

/// What filters of routes are made with: leads references to upstreams, and notes those that lead nowhere.
pub(crate) trait Resolve {
    /// The upstream's index.
    fn resolve(&mut self, target: &BackendObjectReference) -> Option<usize>;
}

/// A filter, or nothing where a reference leads nowhere (which is noted), or why it was refused.
pub(crate) type Made = Result<Option<Box<dyn Filter>>, Problem>;

/// The data of a Secret.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// Leads a reference to a server; `true`: it is spoken to by HTTP/2.
pub(crate) type FindPeer<'a> = dyn Fn(&BackendRef, bool) -> Result<Arc<Peer>, String> + 'a;

/// What guards are made with.
pub(crate) struct Making<'a> {
    /// Whose state it is: the policy, the filter, its place and its parameters.
    pub(crate) id: String,
    /// The data of a Secret of the policy's namespace.
    pub(crate) secret: &'a dyn Fn(&str) -> Option<Data>,
    /// The server that a reference leads to; `h2`: it is spoken to by HTTP/2.
    pub(crate) peer: &'a FindPeer<'a>,
    /// What outlives a change of policies.
    pub(crate) stores: &'a Stores,
    /// Limits that all replicas keep together.
    pub(crate) shares: &'a Shares,
}

impl Making<'_> {
    /// The data of the Secret that is named.
    fn secret(&self, named: Option<&atoll_api::kinds::NameRef>) -> Result<Data, String> {
        let name = &named.ok_or("secretRef: it is absent")?.name;
        let found = (self.secret)(name);
        found.ok_or_else(|| {
            format!(
                "secretRef: Secret `{name}` does not exist here, or is not of type Opaque or kubernetes.io/basic-auth"
            )
        })
    }
}

/// A guard, or why it was refused: the message names the field.
pub(crate) type Guarded = Result<Arc<dyn Guard>, String>;

/// How a row is made.
pub(crate) enum Make {
    /// A filter of routes; `prefixed` where all matches of the rule are by path prefix.
    Route(fn(written: &HTTPRouteFilter, prefixed: bool, resolve: &mut dyn Resolve) -> Made),
    /// A guard.
    Policy {
        make: fn(parameters: &Map<String, Value>, making: &Making<'_>) -> Guarded,
        /// Kinds on which it makes no sense.
        not_on: &'static [&'static str],
    },
}

/// A row of the table.
pub(crate) struct Row {
    /// The type as routes write it, or the filter as policies do.
    pub(crate) name: &'static str,
    pub(crate) make: Make,
}

/// Streams and packets have no requests.
const STREAMS: &[&str] = &["TCPRoute", "UDPRoute", "TLSRoute"];
/// Nor do people come by gRPC with a browser, or read pages there.
const BROWSERS: &[&str] = &["TCPRoute", "UDPRoute", "TLSRoute", "GRPCRoute"];

const fn route(name: &'static str, make: fn(&HTTPRouteFilter, bool, &mut dyn Resolve) -> Made) -> Row {
    Row { name, make: Make::Route(make) }
}

const fn policy(
    name: &'static str,
    not_on: &'static [&'static str],
    make: fn(&Map<String, Value>, &Making<'_>) -> Guarded,
) -> Row {
    Row { name, make: Make::Policy { make, not_on } }
}

/// Filters that ask who comes. Streams and packets that can't be asked do not pass a Gateway that has one.
const ASKING: &[&str] = &["clientCertificate", "basic", "apiKeys", "jwt", "oidc", "forwardAuth", "extAuthz"];

/// Every filter: those of policies, whose order is that of [`PARAMETERS`], and those of routes.
pub(crate) const FILTERS: &[Row] = &[
    policy("hsts", BROWSERS, hsts::make),
    policy("errorPages", BROWSERS, error_pages::make),
    policy("clientCertificate", STREAMS, client_certificate::make),
    policy("deny", &[], cidrs::deny),
    policy("allow", &[], cidrs::allow),
    policy("connections", &[], connections::make),
    policy("sizes", STREAMS, sizes::make),
    policy("bandwidth", STREAMS, bandwidth::make),
    policy("compression", STREAMS, compression::make),
    policy("rate", &[], rate::make),
    policy("cors", STREAMS, cors::policy),
    policy("basic", STREAMS, basic::make),
    policy("apiKeys", STREAMS, api_keys::make),
    policy("jwt", STREAMS, jwt::make),
    policy("oidc", BROWSERS, oidc::make),
    policy("forwardAuth", STREAMS, forward_auth::make),
    policy("extAuthz", STREAMS, ext_authz::make),
    policy("extProc", STREAMS, ext_proc::make),
    policy("cache", BROWSERS, cache::make),
    policy("headers", STREAMS, headers::policy),
    policy("path", STREAMS, path::make),
    route("RequestHeaderModifier", headers::request),
    route("ResponseHeaderModifier", headers::response),
    route("RequestRedirect", redirect::make),
    route("URLRewrite", rewrite::make),
    route("RequestMirror", mirror::make),
    route("CORS", cors::make),
    route("ExternalAuth", external_auth::make),
];

/// The last of those that authenticate.
const AUTHENTICATED: &str = "extAuthz";

/// Makes a filter of a route through the table.
pub(crate) fn make(written: &HTTPRouteFilter, prefixed: bool, resolve: &mut dyn Resolve) -> Made {
    let of_routes = || FILTERS.iter().filter(|row| matches!(row.make, Make::Route(_)));
    let row = of_routes().find(|row| row.name == written.filter_type).ok_or_else(|| {
        let names = of_routes().map(|row| row.name).collect::<Vec<_>>().join(", ");
        refused(format!("filter `{}`: unknown, there are {names}", written.filter_type))
    })?;
    let Make::Route(make) = row.make else { return Err(absent(row.name)) };
    make(written, prefixed, resolve)
}

/// Makes a guard through the table.
///
/// # Errors
/// There is no such filter, or its parameters are none; the message names the field.
pub(crate) fn guard(filter: &str, parameters: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let Some((make, _)) = policy_row(filter) else {
        let names = FILTERS.iter().filter(|r| matches!(r.make, Make::Policy { .. })).map(|r| r.name);
        return Err(format!("filter `{filter}`: unknown, there are {}", names.collect::<Vec<_>>().join(", ")));
    };
    let needs = PARAMETERS.iter().find(|p| p.filter == filter).map(|p| p.needs).unwrap_or_default();
    if let Some(missing) = needs.iter().find(|need| !parameters.contains_key(**need)) {
        return Err(format!("filter `{filter}`: {missing}: it is absent"));
    }
    make(parameters, making).map_err(|why| format!("filter `{filter}`: {why}"))
}

/// Whether a filter makes sense on routes of a kind; one that is unknown makes none anywhere, which is said elsewhere.
pub(crate) fn makes_sense(filter: &str, kind: &str) -> bool {
    policy_row(filter).is_none_or(|(_, not_on)| !not_on.contains(&kind))
}

/// Whether a filter keeps out who can't say who it is, on a route of streams or packets, which never can.
pub(crate) fn shuts(filter: &str, kind: &str) -> bool {
    STREAMS.contains(&kind) && ASKING.contains(&filter)
}

type PolicyRow = (fn(&Map<String, Value>, &Making<'_>) -> Guarded, &'static [&'static str]);

fn policy_row(filter: &str) -> Option<PolicyRow> {
    FILTERS.iter().find_map(|row| match row.make {
        Make::Policy { make, not_on } if row.name == filter => Some((make, not_on)),
        _ => None,
    })
}

/// The place of a filter in the order; what is unknown stands first, so that it refuses first.
pub(crate) fn place(filter: &str) -> usize {
    PARAMETERS.iter().position(|row| row.filter == filter).map_or(0, |at| (at + 1) * 2)
}

/// The place of a guard of that filter.
pub(crate) fn rank(filter: &str, guard: &dyn Guard) -> usize {
    if guard.is_late() { place(AUTHENTICATED) + 1 } else { place(filter) }
}

/// Why a filter answers, for the access log: an extension of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Why(pub(crate) String);

/// The guard in the place of one that can't be made.
#[derive(Debug)]
pub(crate) struct Closed(pub(crate) String);

#[async_trait]
impl Guard for Closed {
    async fn request(&self, _: &mut Asked<'_>) -> Option<Response<Bytes>> {
        tracing::debug!(why = self.0, "closed by a policy that is refused");
        let mut answer = said(StatusCode::SERVICE_UNAVAILABLE, "a policy of this route can't be carried out");
        // What people who run it may know, clients need not.
        answer.extensions_mut().insert(Why(self.0.clone()));
        Some(answer)
    }

    fn stream(&self, _: IpAddr) -> Result<Option<Permit>, &'static str> {
        Err("a policy of this route can't be carried out")
    }
}

/// The parameters of a filter.
fn parameters<T: DeserializeOwned>(written: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(written.clone())).map_err(|error| error.to_string())
}

/// A duration as a field writes it.
fn time(field: &str, written: Option<&String>, default: std::time::Duration) -> Result<std::time::Duration, String> {
    match written {
        None => Ok(default),
        Some(text) => atoll_api::duration::parse(text).map_err(|bad| format!("{field}: {bad}")),
    }
}

/// A header's name as a field writes it.
pub(crate) fn header_name(field: &str, written: &str) -> Result<http::HeaderName, String> {
    written.parse().map_err(|_| format!("{field}: `{written}` is no name of a header"))
}

/// A short answer of our own: a status, and one line that says why.
pub(crate) fn said(status: StatusCode, why: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(format!("{why}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.extensions_mut().insert(Why(why.to_owned()));
    answer
}

fn refused(message: impl Into<String>) -> Problem {
    Problem::new("UnsupportedValue", message)
}

fn absent(name: &str) -> Problem {
    refused(format!("filter `{name}`: its settings are absent"))
}
