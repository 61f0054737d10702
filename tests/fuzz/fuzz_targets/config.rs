//! A `service.json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_peer::fuzzing::config(data));
