//! The private swarm: how the peers of a cluster find each other, call each other, and gossip.
//!
//! [`Network`] is the adapter of two ports of the core, `Transport` and `Gossip`, over libp2p. One actor
//! ([`swarm`](self)) owns the libp2p swarm and never waits for anything but events; calls run on streams of their own
//! (`rpc`), and what is known of other peers is in one bounded address book (`discovery`).
//!
//! **Architecture invariant:** only peers that know the cluster secret get past the first bytes, and only Noise says who
//! they are: the secret is an outer gate, never an authorisation.
//!
//! **Architecture invariant:** every queue, buffer, table and concurrency in this crate has a named bound.

mod bandwidth;
mod config;
mod discovery;
mod error;
mod file;
mod gossip;
mod http;
mod identity;
mod network;
mod rpc;
mod secret;
mod swarm;

pub use config::{GossipSettings, NetworkConfig, TrimRule};
pub use error::NetError;
pub use http::{Duplex, HttpHost, HttpStream, HttpStreams};
pub use identity::{Identity, IdentityError};
pub use network::Network;
pub use rpc::protocol_of;
pub use secret::{ClusterSecret, SecretError};
