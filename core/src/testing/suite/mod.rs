//! What every adapter of a port must do: one suite per port, run by its double and by the real adapter.

pub mod blockstore;
pub mod catchup;
pub mod gossip;
pub mod ipfs;
pub mod pinset;
mod staging;
pub mod state;
pub mod tails;
pub mod tracker_store;
pub mod transport;
