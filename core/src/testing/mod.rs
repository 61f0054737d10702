//! Honest doubles of the ports, and one conformance suite per port (feature `testing`).

pub mod dag;
pub mod linear;
pub mod mem_blocks;
pub mod mem_ipfs;
pub mod mem_log;
pub mod mem_net;
pub mod mem_record;
mod mem_scan;
mod mem_staging;
pub mod mem_state;
pub mod mutate;
pub mod suite;

pub use mem_blocks::MemBlocks;
pub use mem_log::MemLog;
pub use mem_net::{MemNet, MemPeer};
pub use mem_record::MemRecord;
pub use mem_state::MemState;

/// How a peer ends that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: what it has written is there.
    Killed,
    /// The machine dies: what was not flushed is lost.
    PowerCut,
}
