//! Honest doubles of the ports, and one conformance suite per port.

pub mod suite;

pub mod mem_net;
pub use mem_net::{MemNet, MemPeer};
