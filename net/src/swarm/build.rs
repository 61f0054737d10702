//! Puts the protocol stack together: TCP and DNS, the pre-shared key, Noise, Yamux, the behaviours.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{ErrorChain, Multiaddr, Protocol};
use futures::future::Either;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::pnet::{PnetConfig, PnetError};
use libp2p::{PeerId, Swarm, dns, noise, swarm, tcp, yamux};

use super::behaviour::Behaviour;
use super::boxed;
use super::closing::Closing;
use crate::bandwidth::Meters;
use crate::config::NetworkConfig;
use crate::discovery::announced;
use crate::error::NetError;

/// How long a connection without any stream is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Inbound streams of one connection that are being negotiated at once.
const MAX_NEGOTIATING: usize = 64;

/// Streams of one connection, in both directions. Each may hold 256 KiB that nobody has read yet, so this bounds what
/// one peer can make this one keep; calls, gossip and the rest need some 20.
const MAX_STREAMS: usize = 64;

/// Which addresses are told to others.
#[derive(Clone, Debug)]
pub(crate) struct Announce {
    announce: Vec<Multiaddr>,
    no_announce: Vec<Multiaddr>,
}

impl Announce {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self { announce: config.announce.clone(), no_announce: config.no_announce.clone() }
    }

    /// What is told while listening on `listening`.
    pub(crate) fn choose(&self, listening: &[Multiaddr]) -> Vec<Multiaddr> {
        announced(listening, &self.announce, &self.no_announce)
    }
}

/// Builds the swarm; it listens nowhere yet. What goes over its streams is counted in `meters`.
pub(crate) fn build_swarm(config: &NetworkConfig, meters: &Arc<Meters>) -> Result<Swarm<Behaviour>, NetError> {
    if config.secret.is_none() {
        tracing::warn!("no cluster secret is set: anybody who reaches this peer can connect to it");
    }
    let behaviour = Behaviour::new(config).map_err(|(part, cause)| NetError::SetUp { part, cause })?;
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
    Ok(Swarm::new(transport(config, Arc::clone(meters))?, behaviour, config.identity.peer(), settings))
}

/// The listen addresses that can be used, each of them free right now.
pub(crate) fn usable_listen_addresses(offered: &[Multiaddr]) -> Result<Vec<Multiaddr>, NetError> {
    let mut usable = Vec::new();
    for address in offered {
        match socket_address(address) {
            Some(socket) => {
                probe(socket).map_err(|cause| NetError::Listen { address: address.clone(), cause: boxed(cause) })?;
                usable.push(address.clone());
            }
            None => tracing::warn!(%address, "skipped a listen address: a private network has TCP only"),
        }
    }
    if usable.is_empty() { Err(NetError::NoListenAddress) } else { Ok(usable) }
}

/// libp2p lets several sockets of one user share a port, and then two peers would get each other's calls. So the port
/// is taken once without sharing first.
fn probe(socket: SocketAddr) -> std::io::Result<()> {
    if socket.port() == 0 { Ok(()) } else { TcpListener::bind(socket).map(drop) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other part is not an IP address")]
fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn transport(config: &NetworkConfig, meters: Arc<Meters>) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let key = config.secret.as_ref().map(|secret| secret.pre_shared_key());
    let noise = noise::Config::new(config.identity.keypair())
        .map_err(|cause| NetError::SetUp { part: "encryption", cause: boxed(cause) })?;
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(MAX_STREAMS);
    let transport = resolving_tcp()
        .and_then(move |socket, _| async move {
            Ok::<_, PnetError>(match key {
                Some(key) => Either::Left(PnetConfig::new(key).handshake(socket).await?),
                None => Either::Right(socket),
            })
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(multiplexer)
        .timeout(config.dial_timeout)
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(Closing::new(muxer, Arc::clone(&meters)))));
    Ok(transport.boxed())
}

/// TCP that looks names up as the system does, or, on a system that does not say how, not at all usefully.
fn resolving_tcp() -> dns::tokio::Transport<tcp::tokio::Transport> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    dns::tokio::Transport::system(tcp()).unwrap_or_else(|error| {
        tracing::warn!(error = %ErrorChain(&error), "cannot read the system's DNS settings; names will not resolve");
        dns::tokio::Transport::custom(tcp(), dns::ResolverConfig::default(), dns::ResolverOpts::default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_tcp_are_skipped() {
        let offered: Vec<Multiaddr> =
            ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/udp/0/quic", "/ip4/127.0.0.1/tcp/0"]
                .into_iter()
                .filter_map(|text| text.parse().ok())
                .collect();
        assert_eq!(usable_listen_addresses(&offered).unwrap(), ["/ip4/127.0.0.1/tcp/0".parse::<Multiaddr>().unwrap()]);
        assert!(matches!(usable_listen_addresses(&offered[..1]), Err(NetError::NoListenAddress)));
    }

    #[test]
    fn a_busy_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
        let error = usable_listen_addresses(&[address.parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
    }
}
