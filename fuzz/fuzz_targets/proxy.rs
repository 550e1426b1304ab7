//! Fuzzes PROXY headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_gateway::fuzzing::proxy(octets));
