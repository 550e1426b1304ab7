//! Fuzzes TLS hellos.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_gateway::fuzzing::hello(octets));
