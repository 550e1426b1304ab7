//! Fuzzes annotations of Ingresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_gateway::fuzzing::annotations(octets));
