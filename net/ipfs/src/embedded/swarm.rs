//! The public swarm: TCP, noise, yamux; identify, ping and bitswap. Never the cluster's private one.
//!
//! One task owns it and does nothing but pass things on. Connections are bounded in all and per peer; peers that this
//! node was told to connect to are exempt and dialled again when lost ([`Dialer`]).

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use cluster_types::ErrorChain;
use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::bitswap::Bitswap;
use super::dialer::Dialer;
use super::streams::{self, OpenReply};

/// What Kubo announces, so that peers take this node for one of theirs.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";
/// A connection without streams is kept this long: bitswap peers pause, and redialling costs more than waiting.
const IDLE_CONNECTION: Duration = Duration::from_secs(60 * 60);
/// Two peers that dial each other at once have two connections for a while.
const CONNECTIONS_PER_PEER: u32 = 4;
/// Connections that are not yet established, in either direction.
const PENDING_CONNECTIONS: u32 = 64;
/// The part of all connections that may come from outside: dialling out must stay possible.
const INBOUND_SHARE: (u32, u32) = (3, 4);
/// Streams of one connection in both directions, and those of them that are being negotiated: what others open at the
/// same time is far less. Each may hold 256 KiB that nobody has read yet.
const STREAMS_PER_CONNECTION: usize = 32;
const NEGOTIATING_STREAMS: usize = 16;
/// How long listening may take to begin.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often lost peers are looked for.
const REDIAL_EVERY: Duration = Duration::from_secs(1);
/// Commands waiting for the swarm; askers wait when there are more.
pub(super) const COMMANDS: usize = 64;

/// What the swarm can be told.
pub(super) enum Command {
    /// Open a bitswap stream to a connected peer.
    OpenStream { peer: PeerId, reply: OpenReply },
    /// Connect to a peer, and stay connected if `remember`.
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, remember: bool, reply: oneshot::Sender<Result<(), String>> },
    /// Close the connections to a peer.
    Disconnect { peer: PeerId },
    /// Where it listens.
    Addresses { reply: oneshot::Sender<Vec<Multiaddr>> },
    /// Who is connected.
    Connected { reply: oneshot::Sender<Vec<PeerId>> },
    /// Who is connected, and where they are.
    Connections { reply: oneshot::Sender<Vec<(PeerId, Multiaddr)>> },
    /// Close the connections to a peer, and do not dial it again.
    Forget { peer: PeerId },
}

/// The protocols of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Protocols {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    bitswap: streams::Behaviour,
}

/// How the swarm is set up.
pub(super) struct Setup {
    pub(super) key: Keypair,
    pub(super) agent: String,
    pub(super) max_connections: u32,
    pub(super) listen: Vec<Multiaddr>,
}

/// The task that owns the swarm.
pub(super) struct SwarmActor {
    swarm: Swarm<Protocols>,
    bitswap: Arc<Bitswap>,
    dialer: Dialer,
    /// Where connected peers are: the last address of each.
    places: HashMap<PeerId, Multiaddr>,
    waiting: HashMap<PeerId, Vec<oneshot::Sender<Result<(), String>>>>,
}

impl SwarmActor {
    /// Builds the swarm and waits until it listens everywhere it should.
    pub(super) async fn start(setup: Setup, bitswap: Arc<Bitswap>) -> Result<Self, StartError> {
        for address in &setup.listen {
            let fail = |cause: std::io::Error| StartError::Listen { address: address.clone(), cause: cause.into() };
            probe(address).map_err(fail)?;
        }
        let swarm = build(&setup, &bitswap)?;
        let mut actor =
            Self { swarm, bitswap, dialer: Dialer::default(), places: HashMap::new(), waiting: HashMap::new() };
        let mut missing = HashMap::new();
        for address in setup.listen {
            let fail = |cause| StartError::Listen { address: address.clone(), cause };
            let id = actor.swarm.listen_on(address.clone()).map_err(|error| fail(error.into()))?;
            missing.insert(id, address);
        }
        let listening = actor.listen(&mut missing);
        if let Ok(result) = tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
            result?;
        } else if let Some(address) = missing.into_values().next() {
            return Err(StartError::Listen { address, cause: "it takes too long".into() });
        }
        Ok(actor)
    }

    async fn listen(&mut self, missing: &mut HashMap<ListenerId, Multiaddr>) -> Result<(), StartError> {
        while !missing.is_empty() {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                missing.remove(listener_id);
            }
            if let SwarmEvent::ListenerClosed { listener_id, reason: Err(_), .. } = &event
                && let Some(address) = missing.remove(listener_id)
            {
                return Err(StartError::Listen { address, cause: "the listener closed".into() });
            }
            self.handle(event);
        }
        Ok(())
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut redial = tokio::time::interval(REDIAL_EVERY);
        redial.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.swarm.select_next_some() => self.handle(event),
                Some(command) = commands.recv() => self.obey(command),
                _ = redial.tick() => self.redial(),
            }
        }
    }

    fn redial(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|reply| !reply.is_closed());
            !waiting.is_empty()
        });
        let Self { swarm, dialer, .. } = self;
        for (peer, addresses) in dialer.due(Instant::now(), |peer| swarm.is_connected(peer)) {
            // Refused when a dial is under way: the next round comes.
            drop(swarm.dial(dial_options(peer, addresses)));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::OpenStream { peer, reply } => self.swarm.behaviour_mut().bitswap.open(peer, reply),
            Command::Connect { peer, addresses, remember, reply } => self.connect(peer, addresses, remember, reply),
            // The only error is that it is not connected any more.
            Command::Disconnect { peer } => drop(self.swarm.disconnect_peer_id(peer)),
            Command::Addresses { reply } => {
                let own = Protocol::P2p(*self.swarm.local_peer_id());
                let all = self.swarm.listeners().chain(self.swarm.external_addresses());
                drop(reply.send(all.map(|address| address.clone().with(own.clone())).collect()));
            }
            Command::Connections { reply } => {
                drop(reply.send(self.places.iter().map(|(peer, place)| (*peer, place.clone())).collect()));
            }
            Command::Forget { peer } => {
                self.dialer.forget(&peer);
                let _not_connected = self.swarm.disconnect_peer_id(peer);
            }
            Command::Connected { reply } => drop(reply.send(self.swarm.connected_peers().copied().collect())),
        }
    }

    fn connect(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        remember: bool,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        if peer == *self.swarm.local_peer_id() {
            drop(reply.send(Err("that is this node itself".to_owned())));
            return;
        }
        if remember {
            if !self.dialer.remember(peer, &addresses, Instant::now()) {
                drop(reply.send(Err("too many peers to stay connected to".to_owned())));
                return;
            }
            self.swarm.behaviour_mut().limits.bypass_peer_id(&peer);
        }
        if self.swarm.is_connected(&peer) {
            drop(reply.send(Ok(())));
            return;
        }
        self.waiting.entry(peer).or_default().push(reply);
        match self.swarm.dial(dial_options(peer, addresses)) {
            // The end of this dial, or of the one under way, answers.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => {
                tracing::debug!(%peer, error = %ErrorChain(&error), "cannot dial");
                self.answer_waiting(&peer, &Err(ErrorChain(&error).to_string()));
            }
        }
    }

    fn answer_waiting(&mut self, peer: &PeerId, result: &Result<(), String>) {
        for reply in self.waiting.remove(peer).unwrap_or_default() {
            drop(reply.send(result.clone()));
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events change nothing here")]
    fn handle(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, num_established, endpoint, .. } => {
                self.places.insert(peer_id, endpoint.get_remote_address().clone());
                self.answer_waiting(&peer_id, &Ok(()));
                if num_established.get() == 1 {
                    tracing::debug!(peer = %peer_id, "connected");
                    self.bitswap.peer_joined(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                self.places.remove(&peer_id);
                self.bitswap.peer_left(peer_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, error = %ErrorChain(&error), "cannot connect");
                if !self.swarm.is_connected(&peer) {
                    self.answer_waiting(&peer, &Err(ErrorChain(&error).to_string()));
                }
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(ping::Event { peer, connection, result: Err(error) }))
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, error = %ErrorChain(&error), "closing a connection that does not answer");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "the IPFS node listens"),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "the IPFS node no longer listens");
            }
            _ => {}
        }
    }
}

/// libp2p shares its port with other sockets of the same user, and connections would go to one or the other by chance.
/// So the port is taken once without sharing first. Other trouble is for libp2p to report.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => match TcpListener::bind((ip, port)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
            Ok(_) | Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn dial_options(peer: PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addresses).build()
}

fn build(setup: &Setup, bitswap: &Arc<Bitswap>) -> Result<Swarm<Protocols>, StartError> {
    let fail = |cause: cluster_types::BoxError| StartError::Swarm { cause };
    let accepting = Arc::clone(bitswap);
    let accept: streams::OnStream = Arc::new(move |peer, stream, _version| accepting.accept(peer, stream));
    let limits = ConnectionLimits::default()
        .with_max_established(Some(setup.max_connections))
        .with_max_established_incoming(Some(setup.max_connections.div_ceil(INBOUND_SHARE.1) * INBOUND_SHARE.0))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
        .with_max_pending_incoming(Some(PENDING_CONNECTIONS))
        .with_max_pending_outgoing(Some(PENDING_CONNECTIONS));
    let identify =
        identify::Config::new(PROTOCOL_VERSION.to_owned(), setup.key.public()).with_agent_version(setup.agent.clone());
    let protocols = |_key: &Keypair| Protocols {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new()),
        bitswap: streams::Behaviour::new(accept),
    };
    let multiplexer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_PER_CONNECTION);
        config
    };
    let config = |config: libp2p::swarm::Config| {
        config.with_idle_connection_timeout(IDLE_CONNECTION).with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
    };
    let over_tcp = || {
        SwarmBuilder::with_existing_identity(setup.key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexer)
            .map_err(|error| fail(error.into()))
    };
    let never = |error: std::convert::Infallible| match error {};
    Ok(match over_tcp()?.with_dns() {
        Ok(builder) => builder.with_behaviour(protocols).map_err(never)?.with_swarm_config(config).build(),
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "no name resolution: only numeric addresses can be dialled");
            over_tcp()?.with_behaviour(protocols).map_err(never)?.with_swarm_config(config).build()
        }
    })
}
