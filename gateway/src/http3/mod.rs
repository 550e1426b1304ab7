//! HTTP/3: requests over QUIC, at the UDP port beside each TCP port of HTTPS.
//!
//! ```text
//!   doors (which ports) ─► endpoint (who may come) ─► hello (whose listener) ─► talk (connection) ─► exchange (stream)
//!                                                                                  │                   ├─► head ─► qpack ─► huffman
//!                                                                               control                ├─► upload ─► frames
//!                                                                                                      └─► http::answer ─► back
//! ```
//!
//! QUIC is quinn's. The layer above it is our own, as HTTP/1.1's is: it reads strictly, keeps no more of a frame than it may, and opens
//! WebSockets, none of which the library `h3` does (0.0.8: whole frames are gathered however long they say that they are, and `:protocol` is one
//! of two words); clients of the tests are `h3`'s. Decisions are those of `http::answer`, as for every request. Source: RFC 9000, 9001, 9114,
//! 9204, 9220.

mod alternative;
mod control;
mod doors;
mod endpoint;
mod exchange;
mod frames;
mod head;
mod hello;
mod huffman;
mod qpack;
mod socket;
mod talk;
mod tunnel;
mod upload;

pub(crate) use alternative::{Heard, alternative, tell};
pub(crate) use doors::Doors;
pub(crate) use upload::{ClientBody, Lost};
