//! A dag-cbor block.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_core::fuzzing::dag_cbor(data));
