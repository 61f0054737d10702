//! A CAR archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_core::fuzzing::car(data));
