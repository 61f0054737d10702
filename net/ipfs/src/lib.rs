//! The IPFS node of a peer: adapters of the [`cluster_core::ports::IpfsNode`] port.
//!
//! [`kubo`] drives a Kubo daemon over its RPC.

pub mod kubo;
// `pub mod embedded;` goes here.
