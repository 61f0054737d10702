//! `swarm`: who is connected, and where this node listens.

use std::collections::BTreeMap;

use cluster_core::ports::IpfsNode;
use cluster_types::{Multiaddr, PeerId, Protocol};
use serde_json::{Value, json};

use super::Rpc;
use super::call::Call;
use super::reply::{self, Answer, Failure};
use crate::embedded::swarm::Command;

impl Rpc {
    /// `swarm peers`.
    pub(super) async fn swarm_peers(&self) -> Answer {
        let connections = self.node.ask_swarm(|reply| Command::Connections { reply }).await?;
        let peers: Vec<Value> = connections
            .into_iter()
            .map(|(peer, address)| json!({ "Addr": bare(&address).to_string(), "Peer": peer.to_string() }))
            .collect();
        Ok(reply::one(&json!({ "Peers": if peers.is_empty() { Value::Null } else { peers.into() } })))
    }

    /// `swarm addrs`: where connected peers are.
    pub(super) async fn swarm_addrs(&self) -> Answer {
        let connections = self.node.ask_swarm(|reply| Command::Connections { reply }).await?;
        let mut addresses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (peer, address) in connections {
            addresses.entry(peer.to_string()).or_default().push(bare(&address).to_string());
        }
        Ok(reply::one(&json!({ "Addrs": addresses })))
    }

    /// `swarm addrs listen` and `swarm addrs local`.
    pub(super) async fn swarm_own_addrs(&self, call: Call) -> Answer {
        let with_id = call.flag(&["id"])?.unwrap_or(false);
        let addresses = self.node.id().await?.addresses;
        let mut shown: Vec<String> = addresses
            .iter()
            .map(|address| if with_id { address.to_string() } else { bare(address).to_string() })
            .collect();
        shown.sort();
        Ok(reply::one(&json!({ "Strings": shown })))
    }

    /// `swarm connect`.
    pub(super) async fn swarm_connect(&self, mut call: Call) -> Answer {
        let mut said = Vec::new();
        for text in call.arguments("address").await? {
            let (peer, address) = peer_address(&text)?;
            let connected = self.node.connect(vec![address]).await;
            connected.map_err(|error| Failure::from(error).under(&format!("connect {peer} failure")))?;
            said.push(format!("connect {peer} success"));
        }
        Ok(reply::one(&json!({ "Strings": said })))
    }

    /// `swarm disconnect`.
    pub(super) async fn swarm_disconnect(&self, mut call: Call) -> Answer {
        let mut said = Vec::new();
        for text in call.arguments("address").await? {
            let (peer, _) = peer_address(&text)?;
            let connected = self.node.connected().await?.contains(&peer.to_string());
            if connected {
                // Only a swarm that has ended does not take it.
                drop(self.node.swarm.send(Command::Forget { peer }).await);
                said.push(format!("disconnect {peer} success"));
            } else {
                said.push(format!("disconnect {peer} failure: not connected"));
            }
        }
        Ok(reply::one(&json!({ "Strings": said })))
    }
}

fn peer_address(text: &str) -> Result<(PeerId, Multiaddr), Failure> {
    let address: Multiaddr =
        text.parse().map_err(|error| Failure::new(format!("failed to parse multiaddr {text:?}: {error}")))?;
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Ok((peer, address)),
        Some(_) | None => Err(Failure::new(format!("invalid peer address {text:?}: it must end with /p2p/<id>"))),
    }
}

/// An address without the peer's id at its end.
fn bare(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}
