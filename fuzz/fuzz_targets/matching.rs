//! Fuzzes rules of routes and the requests that they take.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_gateway::fuzzing::matching(octets));
