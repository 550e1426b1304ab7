//! HTTP/1.1 of our own, on both sides: read strictly, passed through as octets.
//!
//! ```text
//!   serve (a client's connection) ─► head ─┬► plain: the head's octets rewritten ─► forward ─► client (an endpoint's connection) ─► octets back
//!                                          └► whole: parts, filters ─► http::answer ─────────► …                                ─► frames back
//! ```
//!
//! Memory is lent while something is read and given back as soon as nothing is. Nothing that could be read in two ways is let through: what
//! is forwarded was framed by us. Source: RFC 9110, 9112.

mod before;
mod body;
mod buffer;
mod chunked;
mod client;
mod halves;
mod head;
mod plain;
mod reading;
mod render;
mod serve;
mod splice;
mod whole;

/// What fuzzers look into.
pub(crate) mod fuzzed {
    pub(crate) use super::chunked::{Chunked, Piece};
    pub(crate) use super::head::{Framing, Head};
    pub(crate) use super::plain::Written;
    pub(crate) use super::render::{Asker, chunk, last_chunk, pass_request, request as render_request};
    pub(crate) use super::whole::parts;
}

pub(crate) use body::ClientBody;
pub(crate) use chunked::{NO_TRAILER, may_trail};
pub(crate) use client::{Answer, Exchange, Failed, HeadBounds, Incoming, is_alive};
pub(crate) use reading::Broken;
pub(crate) use render::request as render_request;
pub(crate) use serve::{LAST_CALL, serve};
