//! Fuzzes zone files.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::zone_file(octets));
