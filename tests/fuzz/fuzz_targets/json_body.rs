//! The body of `POST /peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_api::fuzzing::json_body(data));
