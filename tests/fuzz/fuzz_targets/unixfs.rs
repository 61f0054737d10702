//! Files, directories and what else blocks may be.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_core::fuzzing::unixfs(data));
