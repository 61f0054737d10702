//! Streams of one protocol family, in and out, without ever losing one silently.
//!
//! Inbound streams are handed to a callback at once, so nothing queues here. Outbound streams are asked for with
//! [`Behaviour::open`]; a request that cannot be met ends with an error, by a dropped sender at the latest.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::oneshot;

use super::wire::{PROTOCOLS, Version};

/// Takes an inbound stream; must not block.
pub(super) type OnStream = Arc<dyn Fn(PeerId, Stream, Version) + Send + Sync>;

/// No stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    /// The peer speaks none of the protocols.
    #[error("the peer does not speak bitswap")]
    Unsupported,
    /// The connection is gone, or the negotiation failed.
    #[error("the connection failed")]
    Failed,
}

/// Where an opened stream goes.
pub(super) type OpenReply = oneshot::Sender<Result<(Stream, Version), OpenError>>;

/// A request for a stream; its own type only for `Debug`.
pub(super) struct Open(OpenReply);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

/// The behaviour.
pub(super) struct Behaviour {
    on_stream: OnStream,
    requests: VecDeque<(PeerId, Open)>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Hands inbound streams to `on_stream`.
    pub(super) fn new(on_stream: OnStream) -> Self {
        Self { on_stream, requests: VecDeque::new(), waker: None }
    }

    /// Asks for a stream to a connected peer. Every peer has one asker, so the queue is as long as there are peers.
    pub(super) fn open(&mut self, peer: PeerId, reply: OpenReply) {
        self.requests.push_back((peer, Open(reply)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, Arc::clone(&self.on_stream)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, Arc::clone(&self.on_stream)))
    }

    fn on_swarm_event(&mut self, _event: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _peer: PeerId, _connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.requests.pop_front() {
            Some((peer_id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event })
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// One connection's part of the behaviour.
pub(super) struct Handler {
    peer: PeerId,
    on_stream: OnStream,
    requests: VecDeque<Open>,
}

impl Handler {
    fn new(peer: PeerId, on_stream: OnStream) -> Self {
        Self { peer, on_stream, requests: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = Bitswap;
    type OutboundProtocol = Bitswap;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Bitswap, ()> {
        SubstreamProtocol::new(Bitswap, ())
    }

    fn on_behaviour_event(&mut self, request: Open) {
        self.requests.push_back(request);
    }

    fn poll(
        &mut self,
        _context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Bitswap, OpenReply, Self::ToBehaviour>> {
        // A connection polls its handler after every event it hands to it: no waker is needed.
        match self.requests.pop_front() {
            Some(Open(reply)) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Bitswap, reply),
            }),
            None => Poll::Pending,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "events of other kinds do not concern streams")]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Bitswap, Bitswap, (), OpenReply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, version), .. }) => {
                (self.on_stream)(self.peer, stream, version);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                drop(info.send(Ok(protocol)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenError::Failed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.send(Err(error)));
            }
            _ => {}
        }
    }
}

/// Negotiates the protocols of [`PROTOCOLS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bitswap;

impl UpgradeInfo for Bitswap {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        PROTOCOLS.iter().map(|(name, _version)| name.clone()).collect::<Vec<_>>().into_iter()
    }
}

fn version_of(protocol: &StreamProtocol) -> Version {
    PROTOCOLS.iter().find(|(name, _)| name == protocol).map_or(Version::V1_0, |(_, version)| *version)
}

impl InboundUpgrade<Stream> for Bitswap {
    type Output = (Stream, Version);
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version_of(&protocol))))
    }
}

impl OutboundUpgrade<Stream> for Bitswap {
    type Output = (Stream, Version);
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version_of(&protocol))))
    }
}
