//! Fuzzes replies of members.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::translation(octets));
