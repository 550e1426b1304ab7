//! HTTP: from a client's connection to an endpoint's and back.
//!
//! ```text
//!   server (connection) ─► answer (host, route, filters) ─► forward (attempts) ─► exchange (one attempt) ─► body back
//! ```
//!
//! Clients that don't go on are given up: with their heads by hyper's own time, with bodies in `upload`, with answers at the socket
//! (`crate::progress`) and, on HTTP/2, for each stream alone in `streams`.
//!
//! Hyper parses and frames on both sides; nothing that a client sent is forwarded unparsed. Source: RFC 9110, 9112, 9113.

mod answer;
mod body;
pub(crate) mod cookie;
mod exchange;
mod forward;
mod headers;
mod mirror;
mod refusal;
mod server;
mod streams;
mod tunnel;
mod upload;

pub(crate) use body::{InFlight, Outgoing};
pub(crate) use server::{Client, speak};
