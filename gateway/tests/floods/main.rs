//! Clients that want to cost more than they pay: each flood ends at a bound of streams, octets, time or memory, and others are served
//! meanwhile. A program of its own, one test at a time, so that memory means something.
//!
//! `cargo test -p atoll-gateway --test floods -- --nocapture` says what was measured.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "what was measured is said on the standard output")]

#[path = "../gateway/backend.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod backend;
#[path = "../gateway/client.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod client;
#[path = "../smuggling/frames.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod frames;
#[path = "../gateway/world.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod world;

mod control;
mod heads;
mod resets;
mod slow;
mod stage;
