//! Honest doubles of every port, and one conformance suite per port (feature `testing`).

pub mod mem_log;
pub mod mem_record;
