//! What every adapter of a port must do: one suite per port, run by its double and by the real adapter.

pub mod gossip;
pub mod transport;
//! One conformance suite per port: the double and the real adapter both run it.

pub mod ipfs;
