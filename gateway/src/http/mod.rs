//! HTTP: from a client's connection to an endpoint's and back.
//!
//! ```text
//!   server (connection) ─► answer (host, route, filters) ─► forward (attempts) ─► exchange (one attempt) ─► body back
//! ```
//!
//! Clients that don't go on are given up: with their heads by the time that these may take, with bodies in `upload`, with answers at the socket
//! (`crate::progress`) and, on HTTP/2, for each stream alone in `streams`.
//!
//! HTTP/1.1 is parsed and framed by [`crate::http1`], HTTP/2 by hyper, HTTP/3 by [`crate::http3`]; nothing that a client sent is forwarded
//! unparsed. Source: RFC 9110, 9113, 9114.

mod answer;
mod behind;
mod body;
pub(crate) mod cookie;
mod early;
mod exchange;
mod extended;
mod forward;
mod grpc_web;
mod headers;
mod mirror;
pub(crate) mod query;
mod refusal;
mod server;
mod streams;
mod upload;

pub(crate) use answer::{Line, answer, is_grpc, listener, passes, told};
pub(crate) use body::{BodyError, InFlight, Outgoing, Reply};
pub(crate) use early::Early;
pub(crate) use extended::{Key, is_websocket};
pub(crate) use forward::{Ask, Forward, Plain, Trace, frames};
pub(crate) use headers::{are_labels, is_port, strip};
pub(crate) use refusal::{Refusal, is_grpc_kind};
pub(crate) use server::{Client, PING_EVERY, PONG_MAX, speak};
pub(crate) use streams::Streams;
pub(crate) use upload::{FromClient, Payload, Upload};
