//! A block given to the RPC of the embedded node: dag-json, and what is written of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_ipfs::embedded::fuzzing::dag_json(data));
