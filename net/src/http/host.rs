//! A host of libp2p that serves HTTP only, to everybody.

use std::time::Duration;

use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{BoxError, Multiaddr, PeerId};
use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, noise, ping, swarm, tcp, yamux};
use tokio::time::Instant;

use super::addresses::Addresses;
use super::{Door, HttpStreams};
use crate::error::NetError;
use crate::identity::Identity;
use crate::swarm::{boxed, usable_listen_addresses};

/// Streams of one connection.
const MAX_STREAMS: usize = 64;
/// Connections: in all, from one peer, and unfinished.
const MAX_CONNECTIONS: u32 = 512;
const MAX_PER_PEER: u32 = 8;
const MAX_PENDING: u32 = 256;
/// How long connecting may take, and how long a connection without streams is kept.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take until the real addresses are known.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a host that only serves HTTP speaks.
#[derive(NetworkBehaviour)]
struct HostBehaviour {
    addresses: Addresses,
    limits: connection_limits::Behaviour,
    door: Door,
    ping: ping::Behaviour,
}

/// A host that everybody reaches, without the secret of the cluster, and that serves HTTP only.
#[derive(Debug)]
pub struct HttpHost {
    addresses: Vec<Multiaddr>,
}

impl HttpHost {
    /// Listens as `identity`. Returns when the addresses are known, with the streams that come. It ends with `tasks`.
    pub async fn start(
        identity: &Identity,
        listen: &[Multiaddr],
        tasks: &TaskGroup,
    ) -> Result<(Self, HttpStreams), NetError> {
        let mut host = swarm_of(identity)?;
        let stop = tasks.stop_token();
        let streams = host.behaviour().door.open()?;
        let addresses = listen_on(&mut host, listen).await?;
        let peer = identity.peer();
        let addresses = addresses.into_iter().map(|address| address.with_p2p(peer).unwrap_or_else(|same| same));
        let addresses: Vec<Multiaddr> = addresses.collect();
        tasks.spawn("http host", OnExit::StopPeer, async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    _event = host.select_next_some() => {}
                }
            }
        });
        Ok((Self { addresses }, streams))
    }

    /// Where it listens, with `/p2p/<id>`.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }
}

fn transport_of(identity: &Identity) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let noise = noise::Config::new(identity.keypair())
        .map_err(|cause| NetError::SetUp { part: "encryption", cause: boxed(cause) })?;
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(MAX_STREAMS);
    let transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(multiplexer)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed();
    Ok(transport)
}

fn swarm_of(identity: &Identity) -> Result<Swarm<HostBehaviour>, NetError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_established_incoming(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let behaviour = HostBehaviour {
        addresses: Addresses::default(),
        limits: connection_limits::Behaviour::new(limits),
        door: Door::default(),
        ping: ping::Behaviour::default(),
    };
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    let peer: PeerId = identity.peer();
    Ok(Swarm::new(transport_of(identity)?, behaviour, peer, settings))
}

/// Listens on every usable address; the real ones.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else concerns listening")]
async fn listen_on(host: &mut Swarm<HostBehaviour>, offered: &[Multiaddr]) -> Result<Vec<Multiaddr>, NetError> {
    let mut waiting = Vec::new();
    for address in usable_listen_addresses(offered)? {
        let failed = |cause| NetError::Listen { address: address.clone(), cause };
        waiting.push((host.listen_on(address.clone()).map_err(|cause| failed(boxed(cause)))?, address));
    }
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    let mut known = Vec::new();
    while let Some((_, address)) = waiting.first() {
        let failed = |cause| NetError::Listen { address: address.clone(), cause };
        let event = tokio::time::timeout_at(deadline, host.select_next_some()).await;
        match event.map_err(|elapsed| failed(boxed(elapsed)))? {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                known.push(address);
                waiting.retain(|(listener, _)| *listener != listener_id);
            }
            SwarmEvent::ListenerClosed { reason: Err(cause), .. } => return Err(failed(boxed(cause))),
            _other => {}
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;
    use tokio_util::compat::FuturesAsyncReadCompatExt;

    use super::super::{HttpStream, PROTOCOL};
    use super::*;

    fn dialer_of(identity: &Identity) -> Swarm<libp2p_stream::Behaviour> {
        let streams = libp2p_stream::Behaviour::new();
        Swarm::new(transport_of(identity).unwrap(), streams, identity.peer(), swarm::Config::with_tokio_executor())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stream_to_the_host_arrives_without_any_secret() {
        let (server, client) = (Identity::generate(), Identity::generate());
        let tasks = TaskGroup::new();
        let (host, mut streams) =
            HttpHost::start(&server, &["/ip4/127.0.0.1/tcp/0".parse().unwrap()], &tasks).await.unwrap();
        let mut dialer = dialer_of(&client);
        let mut control = dialer.behaviour().new_control();
        dialer.dial(host.addresses()[0].clone()).unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            loop {
                dialer.select_next_some().await;
            }
        });
        let mut asked = control.open_stream(server.peer(), PROTOCOL).await.unwrap().compat();
        asked.write_all(b"ping").await.unwrap();
        asked.flush().await.unwrap();
        let served = streams.recv().await.unwrap();
        let mut heard = [0; 4];
        assert_eq!((served.peer, served.address), (client.peer(), Some([127, 0, 0, 1].into())));
        let mut served = served.stream;
        served.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        served.write_all(b"pong").await.unwrap();
        served.flush().await.unwrap();
        asked.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
        driving.abort_all();
        assert!(tasks.shut_down(Duration::from_secs(20)).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_streams_at_once_none_is_lost() {
        const AT_ONCE: usize = 48;
        let (server, client) = (Identity::generate(), Identity::generate());
        let tasks = TaskGroup::new();
        let (host, mut streams) =
            HttpHost::start(&server, &["/ip4/127.0.0.1/tcp/0".parse().unwrap()], &tasks).await.unwrap();
        let mut dialer = dialer_of(&client);
        let control = dialer.behaviour().new_control();
        dialer.dial(host.addresses()[0].clone()).unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                dialer.select_next_some().await;
            }
        });
        running.spawn(async move {
            let mut serving = JoinSet::new();
            while let Some(HttpStream { mut stream, .. }) = streams.recv().await {
                serving.spawn(async move {
                    stream.write_all(b"pong").await.unwrap();
                    stream.flush().await.unwrap();
                    stream.read_u8().await.ok();
                });
            }
        });
        let (peer, mut asking) = (server.peer(), JoinSet::new());
        for _ in 0..AT_ONCE {
            let mut control = control.clone();
            asking.spawn(async move {
                let mut asked = control.open_stream(peer, PROTOCOL).await.unwrap().compat();
                asked.write_all(b"ping").await.unwrap();
                asked.flush().await.unwrap();
                let mut heard = [0; 4];
                asked.read_exact(&mut heard).await.is_ok()
            });
        }
        let served = asking.join_all().await.into_iter().filter(|served| *served).count();
        assert_eq!(served, AT_ONCE);
        running.abort_all();
        assert!(tasks.shut_down(Duration::from_secs(20)).await.is_empty());
    }
}
