//! HTTP over streams of libp2p: for clients that reach a peer by its id instead of a port.
//!
//! The streams come from the private swarm ([`Network::accept_http`](crate::Network::accept_http)), or from a host of their
//! own ([`HttpHost`]) that needs no secret. What is spoken on them is none of this crate's business.
//!
//! **Invariant:** who does not take streams loses further ones; nothing waits for it.

mod addresses;
mod door;
mod host;

use std::fmt;
use std::net::IpAddr;

use cluster_types::PeerId;
use libp2p::StreamProtocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub(crate) use door::Door;
pub use host::HttpHost;

/// What the original calls it.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p-http");
/// Streams that may wait to be taken; those beyond are closed.
const QUEUE: usize = 64;

/// Bytes to and from somebody.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for S {}

/// A stream on which somebody is about to speak HTTP.
pub struct HttpStream {
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Who opened it.
    pub peer: PeerId,
    /// Where that one is connected from.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for HttpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStream").field("peer", &self.peer).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Streams as they come.
pub type HttpStreams = mpsc::Receiver<HttpStream>;
