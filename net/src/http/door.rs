//! Takes the streams on which others want to speak HTTP.
//!
//! Streams of calls are taken by `libp2p-stream`, which loses those that come faster than they are fetched: callers ask again. A
//! program that speaks HTTP does not, so these wait in a queue of their own.
//!
//! **Invariant:** before the door is opened nobody is offered the protocol.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use cluster_types::{Multiaddr, PeerId, Protocol};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::core::{Endpoint, InboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::mpsc;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::{HttpStream, HttpStreams, PROTOCOL, QUEUE};
use crate::error::NetError;

/// Where streams come in, once it is open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Arc<OnceLock<mpsc::Sender<HttpStream>>>);

impl Door {
    /// Takes streams from now on. Only once.
    pub(crate) fn open(&self) -> Result<HttpStreams, NetError> {
        let (streams, taken) = mpsc::channel(QUEUE);
        let opened = self.0.set(streams);
        opened.map_err(|_| NetError::SetUp { part: "HTTP", cause: "somebody takes the streams already".into() })?;
        Ok(taken)
    }

    fn handler(&self, peer: PeerId, remote: &Multiaddr) -> DoorHandler {
        DoorHandler { door: self.clone(), peer, address: ip_of(remote) }
    }
}

/// The address in the network, if it is one.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    if let Protocol::Ip4(ip) = address.iter().next()? {
        Some(ip.into())
    } else if let Protocol::Ip6(ip) = address.iter().next()? {
        Some(IpAddr::from(ip).to_canonical())
    } else {
        None
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = DoorHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// The part of a connection.
#[derive(Debug)]
pub(crate) struct DoorHandler {
    door: Door,
    peer: PeerId,
    address: Option<IpAddr>,
}

impl ConnectionHandler for DoorHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(Offer { is_open: self.door.0.get().is_some() }, ())
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event else {
            return;
        };
        let stream = HttpStream { stream: Box::new(stream.compat()), peer: self.peer, address: self.address };
        if self.door.0.get().is_none_or(|streams| streams.try_send(stream).is_err()) {
            tracing::debug!(peer = %self.peer, "refused one stream of HTTP too many");
        }
    }
}

/// What a new stream is offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    is_open: bool,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.is_open.then_some(PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, _: Self::Info) -> Self::Future {
        ready(Ok(stream))
    }
}
