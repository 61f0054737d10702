//! The IPFS node that a peer looks after: adapters of the `IpfsNode` port.

pub mod embedded;
