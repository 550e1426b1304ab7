//! Fuzzes the fast path of datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::fast(octets));
