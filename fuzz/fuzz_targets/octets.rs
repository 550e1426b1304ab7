//! Fuzzes replies of members as they are carried over unparsed.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::octets_over(octets));
