//! HTTP/3 as clients meet it: those of the library `h3` over QUIC, and peers that write octets of their own where that writes none so bad.
//! Real sockets on loopback, the embedded API server, real backends.
//!
//! `cargo test -p atoll-gateway --test http3`

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "what was measured is said on the standard output")]

#[path = "../gateway/backend.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod backend;
#[path = "../gateway/client.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod client;
#[path = "../gateway/world.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod world;

mod peer;
mod quic;
mod stage;

mod bounds;
mod life;
mod refused;
mod requests;
mod succession;
mod told;
mod trust;
mod websocket;
