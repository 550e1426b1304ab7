//! Fuzzes the way of every packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| atoll_dns::fuzzing::slow(octets));
