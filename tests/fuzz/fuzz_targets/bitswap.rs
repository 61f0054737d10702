//! A message of bitswap.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster_ipfs::embedded::fuzzing::bitswap(data));
