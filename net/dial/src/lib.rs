//! The way to a peer's REST API over libp2p, for programs that speak HTTP and know nothing of libp2p.
//!
//! A [`Bridge`] listens on a unix socket in a folder that only this user enters, and carries every connection to it over a
//! stream of its own to the peer.
//!
//! **Invariant:** a bridge leads to the peer whose id is in the address, or nowhere: Noise proves who answers.

use std::io;
use std::time::Duration;

use cluster_types::{ErrorClass, Multiaddr, PeerId, Protocol};
use futures::StreamExt;
use futures::future::Either;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, dns, noise, swarm, tcp, yamux};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::compat::FuturesAsyncReadCompatExt;
use zeroize::Zeroizing;

/// What the original calls it.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p-http");
/// How many bytes a cluster secret has.
const SECRET_BYTES: usize = 32;
/// How long a connection without streams is kept: a program may think between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The name of the socket in its folder.
const SOCKET: &str = "api.sock";
/// How long nothing is accepted after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The peer cannot be reached over libp2p.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address does not end with the id of a peer.
    #[error("{address} does not end in /p2p/<peer id>")]
    NoPeer {
        /// The address.
        address: Multiaddr,
    },
    /// The text is not a cluster secret.
    #[error("the cluster secret must be 64 digits from 0-9 and a-f")]
    Secret,
    /// Nobody answers there, or somebody else, or not with this secret.
    #[error(
        "cannot reach {address} over libp2p ({cause}): is it the libp2p address, and the secret that of the cluster?"
    )]
    Unreachable {
        /// The address.
        address: Multiaddr,
        /// What libp2p said.
        cause: String,
    },
    /// The peer is there, and has no REST API for those who come so.
    #[error("{address} serves no REST API over libp2p")]
    NotServed {
        /// The address.
        address: Multiaddr,
    },
    /// The system refused what a bridge needs.
    #[error("cannot make a bridge to libp2p")]
    System(#[source] io::Error),
}

impl DialError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoPeer { .. } | Self::Secret => ErrorClass::Invalid,
            Self::Unreachable { .. } | Self::NotServed { .. } | Self::System(_) => ErrorClass::Unavailable,
        }
    }
}

/// Whether an address leads to a peer by its id.
pub fn is_over_libp2p(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2p(_) | Protocol::Dnsaddr(_)))
}

/// A socket that leads to a peer. It ends when this is dropped.
#[derive(Debug)]
pub struct Bridge {
    target: Multiaddr,
    folder: TempDir,
    /// What carries the bytes; it ends with the bridge.
    _carrying: JoinSet<()>,
}

impl Bridge {
    /// Connects to the peer at `address` within `limit`: in the private network of `secret` (64 hexadecimal digits), or, if
    /// that is empty, to a host that needs none.
    pub async fn open(address: &Multiaddr, secret: &str, limit: Duration) -> Result<Self, DialError> {
        let peer = peer_of(address).ok_or_else(|| DialError::NoPeer { address: address.clone() })?;
        let unreachable = |cause: String| DialError::Unreachable { address: address.clone(), cause };
        let mut swarm = swarm_with(pre_shared_key(secret)?, limit).map_err(unreachable)?;
        connect(&mut swarm, address, limit).await.map_err(unreachable)?;
        if !is_served(&mut swarm, peer, limit).await {
            return Err(DialError::NotServed { address: address.clone() });
        }
        let folder = tempfile::tempdir().map_err(DialError::System)?;
        let listener = UnixListener::bind(folder.path().join(SOCKET)).map_err(DialError::System)?;
        let mut carrying = JoinSet::new();
        carrying.spawn(carry(swarm, Target { peer, address: address.clone(), limit }, listener));
        Ok(Self { target: address.clone(), folder, _carrying: carrying })
    }

    /// Where it leads.
    pub fn target(&self) -> &Multiaddr {
        &self.target
    }

    /// Where it listens: a unix socket.
    pub fn address(&self) -> Multiaddr {
        let path = self.folder.path().join(SOCKET);
        Multiaddr::from(Protocol::Unix(path.to_string_lossy().into_owned().into()))
    }
}

fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    if let Protocol::P2p(peer) = address.iter().last()? { Some(peer) } else { None }
}

fn pre_shared_key(secret: &str) -> Result<Option<PreSharedKey>, DialError> {
    if secret.is_empty() {
        return Ok(None);
    }
    let decoded = Zeroizing::new(hex::decode(secret).map_err(|_| DialError::Secret)?);
    let bytes = <[u8; SECRET_BYTES]>::try_from(decoded.as_slice()).map_err(|_| DialError::Secret)?;
    Ok(Some(PreSharedKey::new(bytes)))
}

fn swarm_with(key: Option<PreSharedKey>, limit: Duration) -> Result<Swarm<libp2p_stream::Behaviour>, String> {
    let keypair = Keypair::generate_ed25519();
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    let transport = transport(&keypair, key, limit)?;
    Ok(Swarm::new(transport, libp2p_stream::Behaviour::new(), keypair.public().to_peer_id(), settings))
}

fn transport(
    keypair: &Keypair,
    key: Option<PreSharedKey>,
    limit: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, String> {
    let noise = noise::Config::new(keypair).map_err(|error| error.to_string())?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let transport = dns::tokio::Transport::system(tcp)
        .map_err(|error| error.to_string())?
        .and_then(move |socket, _| async move {
            Ok::<_, PnetError>(match key {
                Some(key) => Either::Left(PnetConfig::new(key).handshake(socket).await?),
                None => Either::Right(socket),
            })
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(limit);
    Ok(transport.boxed())
}

/// Connects to the peer at `address`, or says why not.
async fn connect(
    swarm: &mut Swarm<libp2p_stream::Behaviour>,
    address: &Multiaddr,
    limit: Duration,
) -> Result<(), String> {
    swarm.dial(address.clone()).map_err(|error| deepest(&error))?;
    let late = |_| Err(format!("no connection within {limit:?}"));
    tokio::time::timeout(limit, connected(swarm)).await.unwrap_or_else(late)
}

/// Returns when the dialled peer is connected.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else decides whether it is connected")]
async fn connected(swarm: &mut Swarm<libp2p_stream::Behaviour>) -> Result<(), String> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(deepest(&error)),
            _other => {}
        }
    }
}

/// Whether a connected peer takes streams of the protocol.
async fn is_served(swarm: &mut Swarm<libp2p_stream::Behaviour>, peer: PeerId, limit: Duration) -> bool {
    let mut control = swarm.behaviour().new_control();
    let mut opening = std::pin::pin!(tokio::time::timeout(limit, control.open_stream(peer, PROTOCOL)));
    loop {
        tokio::select! {
            opened = &mut opening => return matches!(opened, Ok(Ok(_))),
            _event = swarm.select_next_some() => {}
        }
    }
}

/// What is at the bottom of an error of libp2p, in one line: what lies above it names the layers and the address again.
fn deepest(error: &swarm::DialError) -> String {
    let last_line = |text: String| text.lines().last().unwrap_or_default().trim_start_matches([' ', '-']).to_owned();
    if let swarm::DialError::Transport(attempts) = error
        && let Some((_, TransportError::Other(cause))) = attempts.first()
    {
        let mut bottom: &(dyn std::error::Error + 'static) = cause;
        while let Some(deeper) = bottom.source() {
            bottom = deeper;
        }
        return last_line(bottom.to_string());
    }
    last_line(error.to_string())
}

/// Where a bridge leads.
struct Target {
    peer: PeerId,
    address: Multiaddr,
    limit: Duration,
}

/// Carries every connection over a stream of its own. A peer that closed what nobody used is connected to again.
async fn carry(mut swarm: Swarm<libp2p_stream::Behaviour>, to: Target, listener: UnixListener) {
    let control = swarm.behaviour().new_control();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _event = swarm.select_next_some() => {}
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if !swarm.is_connected(&to.peer)
                        && let Err(cause) = connect(&mut swarm, &to.address, to.limit).await
                    {
                        // The program sees its connection end.
                        tracing::debug!(address = %to.address, %cause, "the peer is gone");
                        continue;
                    }
                    connections.spawn(carry_one(socket, to.peer, control.clone()));
                }
                Err(error) => {
                    // Of this one connection, or of a lack that may pass.
                    tracing::debug!(%error, "the bridge to libp2p could not take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn carry_one(mut socket: UnixStream, peer: PeerId, mut control: libp2p_stream::Control) {
    let stream = match control.open_stream(peer, PROTOCOL).await {
        Ok(stream) => stream,
        Err(error) => {
            // The program sees its connection end.
            tracing::debug!(%peer, %error, "the peer takes no HTTP over libp2p");
            return;
        }
    };
    // Either side may leave at any time; the other sees the end.
    let _ = tokio::io::copy_bidirectional(&mut socket, &mut stream.compat()).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn an_address_names_a_peer_at_its_end() {
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/9096/p2p/{PEER}").parse().unwrap();
        assert!(is_over_libp2p(&address));
        assert_eq!(peer_of(&address).unwrap().to_string(), PEER);
        let plain: Multiaddr = "/ip4/127.0.0.1/tcp/9094".parse().unwrap();
        assert!(!is_over_libp2p(&plain) && peer_of(&plain).is_none());
    }

    #[tokio::test]
    async fn what_is_no_secret_is_said_before_anything_is_dialled() {
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}").parse().unwrap();
        for secret in ["xy", "abcd", &"0".repeat(66)] {
            let error = Bridge::open(&address, secret, Duration::from_secs(5)).await.unwrap_err();
            assert!(matches!(error, DialError::Secret), "{error}");
        }
        let nobody = Bridge::open(&address, "", Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(nobody, DialError::Unreachable { .. }), "{nobody}");
    }

    /// A peer that sends back what it hears.
    fn echo() -> (Swarm<libp2p_stream::Behaviour>, JoinSet<()>) {
        let mut swarm = swarm_with(None, Duration::from_secs(20)).unwrap();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL).unwrap();
        let mut echoing = JoinSet::new();
        echoing.spawn(async move {
            // A stream of a connection that this side closed hears nothing of it, and would keep the others waiting.
            let mut streams = JoinSet::new();
            while let Some((_, stream)) = incoming.next().await {
                streams.spawn(async move {
                    let (mut hear, mut say) = tokio::io::split(stream.compat());
                    // The end of a test ends it.
                    let _ = tokio::io::copy(&mut hear, &mut say).await;
                });
            }
        });
        (swarm, echoing)
    }

    async fn heard_back(bridge: &Bridge) -> io::Result<[u8; 4]> {
        let mut socket = UnixStream::connect(bridge.folder.path().join(SOCKET)).await?;
        socket.write_all(b"ping").await?;
        let mut heard = [0; 4];
        socket.read_exact(&mut heard).await.map(|_| heard)
    }

    /// Streams that come at once may be lost by the peer of this test.
    async fn until_heard_back(bridge: &Bridge) {
        let heard = async { while heard_back(bridge).await.ok() != Some(*b"ping") {} };
        tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_that_closed_the_connection_is_connected_to_again() {
        let (mut peer, mut running) = echo();
        let id = *peer.local_peer_id();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = peer.select_next_some().await {
                break address.with(Protocol::P2p(id));
            }
        };
        let (close, mut asked) = tokio::sync::mpsc::channel(1);
        let (closed, mut seen) = tokio::sync::mpsc::channel(1);
        running.spawn(async move {
            loop {
                tokio::select! {
                    event = peer.select_next_some() => if matches!(event, SwarmEvent::ConnectionClosed { .. }) {
                        closed.send(()).await.unwrap();
                    },
                    Some(()) = asked.recv() => {
                        for connected in peer.connected_peers().copied().collect::<Vec<_>>() {
                            peer.disconnect_peer_id(connected).unwrap();
                        }
                    }
                }
            }
        });
        let bridge = Bridge::open(&address, "", Duration::from_secs(20)).await.unwrap();
        until_heard_back(&bridge).await;
        close.send(()).await.unwrap();
        seen.recv().await.unwrap();
        // What is asked before the bridge has seen the end fails; what comes after it does not.
        until_heard_back(&bridge).await;
        drop(bridge);
        running.abort_all();
    }
}
