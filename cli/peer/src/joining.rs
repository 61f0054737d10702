//! A member of one cluster is told to join another: it leaves its own and brings its pins along.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::cluster::meet::same_cluster;
use cluster_core::consensus::log::bring_along;
use cluster_core::ports::{StateStore, Transport, TransportError};
use cluster_core::trust::Trust;
use cluster_net::Network;
use cluster_store::{Store, StoreOptions};
use cluster_types::{Multiaddr, PeerId};

use crate::config::Config;
use crate::peer::{PeerError, start};

/// Times that a `--bootstrap` address is dialled, and the pause in between.
const DIAL_TRIES: u32 = 3;
const DIAL_PAUSE: Duration = Duration::from_millis(500);

/// Of those that answered at the `--bootstrap` addresses, the ones that this peer trusts. An error if there is none, unless
/// the peer is a member already, and needs nobody to go on.
pub(crate) fn trusted(answered: Vec<PeerId>, trust: &Trust, is_member: bool) -> Result<Vec<PeerId>, PeerError> {
    let (trusted, others): (Vec<PeerId>, Vec<PeerId>) = answered.into_iter().partition(|peer| trust.includes(peer));
    match others.first() {
        Some(peer) if trusted.is_empty() && !is_member => Err(PeerError::HostNotTrusted { peer: *peer }),
        Some(peer) => {
            tracing::warn!(%peer, "a --bootstrap peer is not in consensus.crdt.trusted_peers and is not asked");
            Ok(trusted)
        }
        None => Ok(trusted),
    }
}

/// Takes `store` out of its cluster if `hosts` belong to another one. Nothing is lost if that is cut off, or if nobody lets
/// this peer in afterwards: its pins wait in its outbox.
pub(crate) async fn leave_for(
    hosts: &[PeerId],
    store: Store,
    config: &Config,
    network: &Arc<Network>,
) -> Result<Store, PeerError> {
    let state: Arc<dyn StateStore> = store.state();
    let own = bring_along::cluster_of(state.as_ref()).await.map_err(start("the store"))?;
    let (Some(own), false) = (own, hosts.is_empty()) else { return Ok(store) };
    let transport = Arc::clone(network) as Arc<dyn Transport>;
    match same_cluster(&transport, hosts, own).await {
        Some(false) => {}
        Some(true) => return Ok(store),
        None => {
            tracing::warn!(
                "no peer at the --bootstrap addresses says to which cluster it belongs; this peer stays in its own"
            );
            return Ok(store);
        }
    }
    tracing::info!(
        "the --bootstrap peers belong to another cluster: this peer leaves its own and brings its pins along"
    );
    let pins = bring_along::pack(&state).await.map_err(start("the move to another cluster"))?;
    let applied = bring_along::leaving().map_err(start("the move to another cluster"))?;
    drop(state);
    store.forget_cluster(applied).await.map_err(start("the move to another cluster"))?;
    tracing::info!(pins, "this peer has left its cluster; its pins are merged into the other one once it is a member");
    Store::open(&config.state_folder, StoreOptions::default()).map_err(start("the store"))
}

/// Finds out who answers at the addresses to join.
pub(crate) async fn dial(
    transport: &dyn Transport,
    bootstrap: &[Multiaddr],
    config: &Config,
) -> Result<Vec<PeerId>, PeerError> {
    let mut members = Vec::new();
    let mut last = None;
    for address in bootstrap {
        match dial_one(transport, address, config.cluster.dial_timeout * 4).await {
            Ok(peer) => members.push(peer),
            Err(error) => {
                tracing::warn!(%address, error = %cluster_types::ErrorChain(&error), "a bootstrap address does not answer");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if members.is_empty() => Err(PeerError::NobodyToJoin { cause: error.into() }),
        _ => Ok(members),
    }
}

/// Finds out who answers at an address. Members that remember this peer dial it as soon as it listens, and two that dial
/// each other at once may both fail: a second try is worth it.
async fn dial_one(transport: &dyn Transport, address: &Multiaddr, limit: Duration) -> Result<PeerId, TransportError> {
    let mut tries = 1;
    loop {
        match transport.dial(address.clone(), limit).await {
            Err(error) if tries < DIAL_TRIES => {
                tracing::debug!(%address, error = %cluster_types::ErrorChain(&error), "a bootstrap address is dialled again");
                tries += 1;
                tokio::time::sleep(DIAL_PAUSE).await;
            }
            dialled => return dialled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_peers_are_asked_to_let_this_one_in() {
        let [friend, stranger] = [PeerId::random(), PeerId::random()];
        let list = Trust::Only([friend].into());
        let of = |answered: &[PeerId], trust, is_member| trusted(answered.to_vec(), trust, is_member).map_err(drop);
        assert_eq!(of(&[stranger], &Trust::Everyone, false), Ok(vec![stranger]));
        assert_eq!(of(&[stranger, friend], &list, false), Ok(vec![friend]));
        assert_eq!(of(&[stranger], &list, false), Err(()));
        assert_eq!(of(&[stranger], &list, true), Ok(vec![]), "it goes on in its own cluster");
        assert_eq!(of(&[], &list, false), Ok(vec![]));
    }
}
