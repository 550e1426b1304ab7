//! HTTP: from a client's connection to an endpoint's and back.
//!
//! ```text
//!   server (connection) ─► answer (host, route, filters) ─► forward (attempts) ─► exchange (one attempt) ─► body back
//! ```
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
mod tunnel;

pub(crate) use body::{InFlight, Outgoing};
pub(crate) use server::{Client, speak};
