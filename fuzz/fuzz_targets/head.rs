//! Fuzzes heads of requests over HTTP/1.1.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_gateway::fuzzing::head(octets));
