//! The IPFS node of a peer: adapters of the [`cluster_core::ports::IpfsNode`] port.
//!
//! [`kubo`] drives a Kubo daemon over its RPC; [`embedded`] is a node of our own.

mod check;
pub mod embedded;
mod gc_list;
pub mod kubo;

pub(crate) use check::check_block;
pub(crate) use gc_list::GcList;
