//! Where those come from who connect to a host that serves everybody: an id costs nothing, an address does.
//!
//! **Invariant:** one address has at most [`MAX_PER_ADDRESS`] connections, those counted that are not finished.
//! **Invariant:** what is kept of a connection goes with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use cluster_types::{Multiaddr, PeerId};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};

use super::door::ip_of;

/// How many connections one address may have; of IPv6, one network of 64 bits, which is the least that anybody is given.
const MAX_PER_ADDRESS: usize = 64;

/// The address has as many connections as it may.
#[derive(Debug, thiserror::Error)]
#[error("{address} has {MAX_PER_ADDRESS} connections already")]
struct TooMany {
    address: IpAddr,
}

/// Knows and bounds them.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<ConnectionId, IpAddr>);

impl Addresses {
    fn begin(&mut self, connection: ConnectionId, address: IpAddr) -> Result<(), TooMany> {
        let address = owned(address);
        if self.0.values().filter(|known| **known == address).count() >= MAX_PER_ADDRESS {
            return Err(TooMany { address });
        }
        self.0.insert(connection, address);
        Ok(())
    }
}

/// What belongs to one client, by its first address.
fn owned(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl NetworkBehaviour for Addresses {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        ip_of(remote).map_or(Ok(()), |address| self.begin(connection, address)).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only the end of a connection counts")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let ended = match event {
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            _ => return,
        };
        self.0.remove(&ended);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let mut addresses = Addresses::default();
        let here: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let there: Multiaddr = "/ip4/192.0.2.7/tcp/4242".parse().unwrap();
        for number in 0..MAX_PER_ADDRESS {
            let connection = ConnectionId::new_unchecked(number);
            addresses.handle_pending_inbound_connection(connection, &here, &there).unwrap();
        }
        let further = ConnectionId::new_unchecked(MAX_PER_ADDRESS);
        assert!(addresses.handle_pending_inbound_connection(further, &here, &there).is_err());
        addresses
            .handle_pending_inbound_connection(further, &here, &"/ip6/2001:db8::1/tcp/1".parse().unwrap())
            .unwrap();
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let mut addresses = Addresses::default();
        let mut begin = |number: usize, address: &str| {
            addresses.begin(ConnectionId::new_unchecked(number), address.parse().unwrap()).is_ok()
        };
        assert!((0..MAX_PER_ADDRESS).all(|number| begin(number, &format!("2001:db8:0:7::{number:x}"))));
        assert!(!begin(100, "2001:db8:0:7:ffff::1"));
        assert!(begin(101, "2001:db8:0:8::1") && begin(102, "::ffff:192.0.2.7"));
    }
}
