//! What the transports over streams have in common.
//!
//! ```text
//!   listener ─ accept ─ seat ─ PROXY header ─┬────────────── converse   (TCP)
//!                                            └─ TLS ─┬────── converse   (DoT)
//!                                                    └────── HTTP 1, 2 ─┐ (DoH)
//!   UDP socket ─ QUIC ─ seat ─┬─ a query for each stream        (DoQ)   ├─ message over HTTP
//!                             └─ HTTP/3 ────────────────────────────────┘ (DoH3)
//! ```
//!
//! In: listeners, limits, a responder. Out: replies. Everything has a bound: connections of all clients and of one, queries in flight, time
//! for a handshake, without a query, and for a client that does not read.

pub(crate) mod converse;

pub(crate) mod http;

pub(crate) mod listen;

pub(crate) mod message;

pub(crate) mod patient;

pub(crate) use atoll_reach::proxy;

pub(crate) mod quic;

pub(crate) mod seats;

pub(crate) mod secure;
