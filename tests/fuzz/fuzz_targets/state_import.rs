//! An export that is to be imported.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_peer::fuzzing::state_import(data));
