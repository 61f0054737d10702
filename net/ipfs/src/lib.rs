//! The IPFS node of a peer: adapters of the [`cluster_core::ports::IpfsNode`] port.
//!
//! [`kubo`] drives a Kubo daemon over its RPC; [`embedded`] is a node of our own.

pub mod embedded;
pub mod kubo;
