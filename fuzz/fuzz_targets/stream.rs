//! Fuzzes what stands around messages on streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::stream(octets));
