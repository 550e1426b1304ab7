//! The seeds of this crate's fuzzers, played.

#![allow(clippy::unwrap_used, reason = "a folder that can't be read ends the test")]

#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[test]
fn every_seed_keeps_the_rules() {
    seeds::play(atoll_dns::fuzzing::TARGETS);
}
