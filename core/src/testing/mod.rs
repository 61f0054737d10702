//! Honest doubles of the ports and one conformance suite per port (feature `testing`).

pub mod dag;
pub mod mem_ipfs;
pub mod suite;
