//! A token.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_api::fuzzing::jwt(data));
