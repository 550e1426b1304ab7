//! Fuzzes replies of upstream resolvers.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::upstream(octets));
