//! The loop around the swarm.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{GossipError, GossipMessage, Topic};
use cluster_types::{ErrorChain, Multiaddr, PeerId};
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, PublishError};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Swarm, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::behaviour::{Behaviour, BehaviourEvent, topic_name};
use super::build::usable_listen_addresses;
use super::connections::Connections;
use super::gate::{Gate, Verdict};
use super::trim::Trim;
use super::{Announce, ConnectError, Request, Shared, boxed};
use crate::config::NetworkConfig;
use crate::discovery::{peer_of, without_peer};
use crate::error::NetError;
use crate::http::Door;

/// How many calls may wait for connections together.
const MAX_WAITING: usize = 4_096;
/// How long binding a listener may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// More connections with one peer than this are not kept after a dial that only asked who is there.
const ENOUGH_CONNECTIONS: u32 = 2;
/// How long the swarm is driven after it was told to close its connections.
const GOODBYE: Duration = Duration::from_millis(200);

type ConnectReply = oneshot::Sender<Result<(), ConnectError>>;
type DialReply = oneshot::Sender<Result<PeerId, ConnectError>>;

/// Owns the swarm.
pub(crate) struct SwarmActor {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    announce: Announce,
    topics: [(Topic, IdentTopic); 2],
    listeners: HashMap<ListenerId, BTreeSet<Multiaddr>>,
    listen_failure: Option<(ListenerId, std::io::Error)>,
    waiting: HashMap<PeerId, Vec<ConnectReply>>,
    /// Every dial that is under way: which peer it shall reach, and who waits for this very one.
    dials: HashMap<ConnectionId, (Option<PeerId>, Option<DialReply>)>,
    connections: Connections,
    trim: Trim,
    gate: Gate,
    /// Remembered peers, which the connection limits must not keep out.
    welcome: BTreeSet<PeerId>,
    saved_revision: u64,
}

impl SwarmActor {
    pub(crate) fn new(swarm: Swarm<Behaviour>, shared: Arc<Shared>, config: &NetworkConfig) -> Self {
        Self {
            swarm,
            shared,
            announce: Announce::new(config),
            topics: Topic::ALL.map(|topic| (topic, topic_name(&config.cluster_name, topic))),
            listeners: HashMap::new(),
            listen_failure: None,
            waiting: HashMap::new(),
            dials: HashMap::new(),
            connections: Connections::default(),
            trim: Trim::new(config.trim),
            gate: Gate::new(Instant::now()),
            welcome: BTreeSet::new(),
            saved_revision: 0,
        }
    }

    /// Where HTTP comes in.
    pub(crate) fn http(&self) -> Door {
        self.swarm.behaviour().http.clone()
    }

    /// Opens and accepts streams on the swarm's connections.
    pub(crate) fn stream_control(&self) -> libp2p_stream::Control {
        self.swarm.behaviour().streams.new_control()
    }

    /// Listens on every usable address; returns when the real ones are known.
    pub(crate) async fn listen(&mut self, offered: &[Multiaddr]) -> Result<(), NetError> {
        let mut wanted = HashMap::new();
        for address in usable_listen_addresses(offered)? {
            let listener = self
                .swarm
                .listen_on(address.clone())
                .map_err(|cause| NetError::Listen { address: address.clone(), cause: boxed(cause) })?;
            wanted.insert(listener, address);
        }
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        while let Some((_, address)) = wanted.iter().find(|(listener, _)| !self.listeners.contains_key(listener)) {
            let failed = |cause| NetError::Listen { address: address.clone(), cause };
            let event = tokio::time::timeout_at(deadline, self.swarm.select_next_some())
                .await
                .map_err(|elapsed| failed(boxed(elapsed)))?;
            self.on_event(event);
            if let Some((listener, cause)) = self.listen_failure.take() {
                let address = wanted.get(&listener).unwrap_or(address).clone();
                return Err(NetError::Listen { address, cause: boxed(cause) });
            }
        }
        Ok(())
    }

    /// Runs until told to stop; then closes every connection.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        self.follow_book();
        loop {
            let due = earliest(self.shared.book.lock().next_due(), self.trim.due());
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.wake.notified() => {}
                () = sleep_until(due) => {}
                Some(request) = requests.recv() => self.answer(request),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
            self.follow_book();
            self.trim_connections();
        }
        self.say_goodbye().await;
    }

    async fn say_goodbye(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // The only error is that it is not connected any more.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
        let drained = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // A peer that does not answer is not waited for.
        let _timed_out = tokio::time::timeout(GOODBYE, drained).await;
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Connect { peer, reply } => self.connect(peer, reply),
            Request::Dial { address, reply } => self.dial_address(address, reply),
            Request::Publish { topic, data, reply } => {
                // Whoever asked may be gone; the message is out all the same.
                let _unheard = reply.send(self.publish(topic, data));
            }
        }
    }

    fn connect(&mut self, peer: PeerId, reply: ConnectReply) {
        // In every branch a caller that has gone away needs no answer.
        if self.swarm.is_connected(&peer) {
            let _unheard = reply.send(Ok(()));
            return;
        }
        let addresses = self.shared.book.lock().addresses_of(&peer);
        if addresses.is_empty() {
            let _unheard = reply.send(Err(ConnectError::NoAddress));
            return;
        }
        if self.waiting.values().map(Vec::len).sum::<usize>() >= MAX_WAITING {
            for replies in self.waiting.values_mut() {
                replies.retain(|reply| !reply.is_closed());
            }
        }
        if self.waiting.values().map(Vec::len).sum::<usize>() >= MAX_WAITING {
            let _unheard = reply.send(Err(ConnectError::Busy));
            return;
        }
        self.waiting.entry(peer).or_default().push(reply);
        self.dial_peer(peer, addresses);
    }

    fn dial_peer(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let options =
            DialOpts::peer_id(peer).addresses(addresses).condition(PeerCondition::DisconnectedAndNotDialing).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, (Some(peer), None));
                self.shared.book.lock().dialling(&peer);
            }
            // It is connected, or a dial that is in `dials` is under way and will tell.
            Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.on_dial_failure(peer, &error),
        }
    }

    fn dial_address(&mut self, address: Multiaddr, reply: DialReply) {
        let peer = peer_of(&address);
        if let Some(peer) = peer.filter(|peer| self.swarm.is_connected(peer)) {
            // A second connection would look as if this peer had begun anew.
            let _unheard = reply.send(Ok(peer));
            return;
        }
        let bare = without_peer(address);
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer).addresses(vec![bare]).condition(PeerCondition::Always).build(),
            None => DialOpts::unknown_peer_id().address(bare).build(),
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, (peer, Some(reply)));
            }
            Err(error) => {
                let _unheard = reply.send(Err(connect_error(&error)));
            }
        }
    }

    fn publish(&mut self, topic: Topic, data: Bytes) -> Result<(), GossipError> {
        let size = data.len();
        let name = &self.topics.iter().find(|(known, _)| *known == topic).expect("all topics are known").1;
        match self.swarm.behaviour_mut().gossip.publish(name.hash(), data) {
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => Ok(()),
            Err(PublishError::MessageTooLarge) => Err(GossipError::TooLarge { size }),
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), topic = topic.as_str(), "a message was not published");
                Err(GossipError::Closed)
            }
        }
    }

    /// Does what the address book asks for.
    fn follow_book(&mut self) {
        let (due, to_disconnect, revision) = {
            let mut book = self.shared.book.lock();
            (book.take_due(Instant::now()), book.take_to_disconnect(), book.revision())
        };
        if revision != self.saved_revision {
            self.saved_revision = revision;
            self.shared.book_changed.notify_one();
            self.welcome_remembered();
        }
        for peer in to_disconnect {
            // The only error is that it is not connected any more.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
        for (peer, addresses) in due {
            self.dial_peer(peer, addresses);
        }
    }

    /// Has fewer connections when there are too many.
    fn trim_connections(&mut self) {
        let surplus = self.trim.take(&self.connections, &self.welcome, Instant::now());
        if !surplus.is_empty() {
            tracing::info!(peers = surplus.len(), "closing connections: more peers are connected than high_water says");
        }
        for peer in surplus {
            // The only error is that it is not connected any more.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn welcome_remembered(&mut self) {
        let remembered: BTreeSet<PeerId> = self.shared.book.lock().remembered().map(|(peer, _)| peer).collect();
        let limits = &mut self.swarm.behaviour_mut().limits;
        for peer in remembered.difference(&self.welcome) {
            limits.bypass_peer_id(peer);
        }
        for peer in self.welcome.difference(&remembered) {
            limits.remove_peer_id(peer);
        }
        self.welcome = remembered;
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events need no action here")]
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening for peers");
                self.listeners.entry(listener_id).or_default().insert(address);
                self.update_own_addresses();
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.listeners.entry(listener_id).or_default().remove(&address);
                self.update_own_addresses();
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.listeners.remove(&listener_id);
                self.update_own_addresses();
                if let Err(error) = reason {
                    tracing::error!(error = %ErrorChain(&error), "a listener for peers has closed");
                    self.listen_failure = Some((listener_id, error));
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(error = %ErrorChain(&error), "a listener for peers has trouble");
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint, num_established.get());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.connections.closed(&peer_id, connection_id);
                if num_established == 0 {
                    tracing::debug!(peer = %peer_id, "disconnected");
                    self.shared.book.lock().disconnected(&peer_id, Instant::now(), rand::random());
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                let (wanted, reply) = self.dials.remove(&connection_id).unwrap_or_default();
                if let Some(reply) = reply {
                    let _unheard = reply.send(Err(connect_error(&error)));
                }
                if let Some(peer) = wanted.or(peer_id) {
                    self.on_dial_failure(peer, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, error = %ErrorChain(&error), "an inbound connection failed");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, count: u32) {
        tracing::debug!(%peer, inbound = endpoint.is_listener(), "connected");
        if self.connections.opened(peer, connection, Instant::now()) {
            tracing::debug!(%peer, "it has begun anew while an old connection was still there: all are closed");
            // The only error is that it is not connected any more.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
        self.trim.connected(self.connections.peers(), Instant::now());
        let dialled = match endpoint {
            ConnectedPoint::Dialer { address, .. } => Some(address),
            ConnectedPoint::Listener { .. } => None,
        };
        self.shared.book.lock().connected(peer, dialled, Instant::now(), rand::random());
        for reply in self.waiting.remove(&peer).unwrap_or_default() {
            let _unheard = reply.send(Ok(()));
        }
        if let Some((_, Some(reply))) = self.dials.remove(&connection) {
            let _unheard = reply.send(Ok(peer));
            if count > ENOUGH_CONNECTIONS {
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_dial_failure(&mut self, peer: PeerId, error: &DialError) {
        // Another dial to the same peer tells when it ends.
        if self.swarm.is_connected(&peer) || self.dials.values().any(|(wanted, _)| *wanted == Some(peer)) {
            return;
        }
        tracing::debug!(%peer, error = %ErrorChain(error), "cannot connect");
        self.shared.book.lock().dial_failed(&peer, Instant::now(), rand::random());
        let failure = connect_error(error);
        for reply in self.waiting.remove(&peer).unwrap_or_default() {
            let _unheard = reply.send(Err(failure.clone()));
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events need no action here")]
    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.deliver(message);
                self.swarm.behaviour_mut().gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.shared.book.lock().learn(peer_id, &info.listen_addrs, Instant::now());
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) })
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, error = %ErrorChain(&error), "closing a connection that does not answer");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut book = self.shared.book.lock();
                for (peer, address) in found {
                    book.found(peer, &[address], Instant::now());
                }
            }
            _ => {}
        }
    }

    /// Hands a message, whose signature gossipsub has checked, to those who listen here.
    fn deliver(&mut self, message: gossipsub::Message) -> MessageAcceptance {
        let topic = self.topics.iter().find(|(_, name)| name.hash() == message.topic).map(|(topic, _)| *topic);
        let (Some(topic), Some(from), Some(number)) = (topic, message.source, message.sequence_number) else {
            return MessageAcceptance::Reject;
        };
        if message.data.len() > topic.max_message() {
            return MessageAcceptance::Reject;
        }
        if from == *self.swarm.local_peer_id() {
            return MessageAcceptance::Ignore;
        }
        let remembered = self.shared.book.lock().is_remembered(&from);
        match self.gate.judge(from, number, message.data.len(), remembered, Instant::now()) {
            Verdict::Accept => {}
            Verdict::AcceptOld => {
                tracing::warn!(peer = %from, "gossip of a peer counts from a lower number than a day ago; taken again");
            }
            Verdict::Old { first: true } => {
                tracing::warn!(peer = %from, "ignored old gossip of a peer: its clock was set back, or somebody repeats it");
                return MessageAcceptance::Ignore;
            }
            ignored @ (Verdict::Old { first: false } | Verdict::TooMuch) => {
                tracing::debug!(peer = %from, topic = topic.as_str(), ?ignored, "ignored a message");
                return MessageAcceptance::Ignore;
            }
        }
        // Nobody may be listening; that is no reason not to pass the message on.
        let _unheard = self.shared.listeners(topic).send(GossipMessage { from, data: message.data.into() });
        MessageAcceptance::Accept
    }

    fn update_own_addresses(&mut self) {
        let listening: Vec<Multiaddr> = self.listeners.values().flatten().cloned().collect();
        let chosen = self.announce.choose(&listening);
        let before = std::mem::replace(&mut *self.shared.own_addresses.lock(), chosen.clone());
        for gone in before.iter().filter(|address| !chosen.contains(address)) {
            self.swarm.remove_external_address(gone);
        }
        for new in chosen.into_iter().filter(|address| !before.contains(address)) {
            self.swarm.add_external_address(new);
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other failure is told in libp2p's words")]
fn connect_error(error: &DialError) -> ConnectError {
    match error {
        DialError::LocalPeerId { .. } => ConnectError::Myself,
        DialError::NoAddresses => ConnectError::NoAddress,
        _ => ConnectError::Failed(ErrorChain(error).to_string()),
    }
}
