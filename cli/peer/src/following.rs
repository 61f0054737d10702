//! A peer that only follows: built on the same rooms, without a part in the ordering.

use std::io::ErrorKind;
use std::sync::Arc;

use cluster_core::catchup::Donor;
use cluster_core::cluster::Standing;
use cluster_core::cluster::meet::Meeting;
use cluster_core::consensus::Consensus;
use cluster_core::consensus::log::{AppliedPosition, LogConsensus};
use cluster_core::follower::{Follower, FollowerParts, PullFromPeers, hold_again};
use cluster_core::ports::{OutboxStore, StateStore};
use cluster_core::rpc::CallServer;
use cluster_core::task::TaskGroup;
use cluster_core::trust::Trust;
use cluster_core::watch;
use cluster_store::Store;
use cluster_types::{BoxError, Multiaddr};

use crate::config::{Config, ConsensusMode, TrustedPeers};
use crate::peer::{PeerError, Rooms, start};

/// File in the state folder that says by which rule the node's share was chosen.
const FILTER_FILE: &str = "follower_filter.json";

/// What a peer is to the ordering of writes.
#[derive(Clone, Debug)]
pub(crate) enum Ordering {
    /// It takes part.
    Log(Arc<LogConsensus>, Arc<Meeting>),
    /// It follows those it trusts.
    Follower(Arc<Follower>, Trust),
}

impl Ordering {
    pub(crate) fn consensus(&self) -> Arc<dyn Consensus> {
        match self {
            Self::Log(log, _) => Arc::clone(log) as _,
            Self::Follower(follower, _) => Arc::clone(follower) as _,
        }
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        match self {
            Self::Log(log, _) => log.applied(),
            Self::Follower(follower, _) => follower.applied(),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match self {
            Self::Log(log, meeting) => Standing::Member { log: Arc::clone(log), meeting: Arc::clone(meeting) },
            Self::Follower(_, trust) => Standing::Follower(trust.clone()),
        }
    }

    /// Returns when this peer is to join another cluster: the addresses of a member of it. A follower never is.
    pub(crate) async fn to_join(&self) -> Vec<Multiaddr> {
        let Self::Log(_, meeting) = self else { return std::future::pending().await };
        let mut to_join = meeting.to_join();
        // An error means that nobody looks out for others any more.
        let _ended = to_join.wait_for(Option::is_some).await;
        let addresses = to_join.borrow().clone();
        match addresses {
            Some(addresses) => addresses,
            None => std::future::pending().await,
        }
    }
}

/// Refuses to follow on the state of a member, and to take part on that of a follower.
pub(crate) async fn check(config: &Config, store: &Store, is_member: bool) -> Result<(), PeerError> {
    let other =
        |found, wanted| PeerError::OtherStanding { folder: config.state_folder.display().to_string(), found, wanted };
    let state = store.state();
    let at = AppliedPosition::decode(state.applied().await.map_err(start("the store"))?.as_ref());
    let at = at.map_err(start("the store"))?;
    if config.cluster.follower_mode {
        // One that has left its cluster still has its pins to bring into another.
        let leaves = at.leaving || state.waiting_count().all > 0;
        return if is_member || leaves { Err(other("a member", "a follower")) } else { Ok(()) };
    }
    // A member's log knows it before anything is applied.
    if !is_member && at.last.is_some() { Err(other("a follower", "a member")) } else { Ok(()) }
}

/// Whose word counts, by the configuration.
pub(crate) fn trust(config: &Config) -> Trust {
    match &config.consensus.mode {
        ConsensusMode::Crdt { trusted: TrustedPeers::Only(peers), .. } => Trust::Only(peers.iter().copied().collect()),
        ConsensusMode::Crdt { trusted: TrustedPeers::Everyone, .. } | ConsensusMode::Raft { .. } => Trust::Everyone,
    }
}

impl Rooms<'_> {
    /// Follows those that the configuration trusts, and serves what it has to others that catch up.
    pub(crate) async fn follow(&self, server: &CallServer, tasks: &TaskGroup) -> Result<Ordering, PeerError> {
        let state: Arc<dyn StateStore> = self.store.state();
        let trust = trust(self.config);
        self.apply_filter(&state).await.map_err(start("the share of this follower"))?;
        let pull = PullFromPeers::new(Arc::clone(&state), self.effect(), Arc::clone(self.network) as _, trust.clone());
        let parts = FollowerParts {
            state: Arc::clone(&state),
            effect_at: self.effect(),
            gossip: Arc::clone(self.network) as _,
            catch_up: Arc::new(pull),
            trust: trust.clone(),
        };
        let follower = Follower::start(parts, tasks).await.map_err(start("following"))?;
        server.serve_shards(Arc::new(Donor::new(state, follower.applied())));
        Ok(Ordering::Follower(follower, trust))
    }

    /// Looks at every pin again when the filter is another one than the last time: the only walk over all pins, and only
    /// because somebody changed the configuration.
    async fn apply_filter(&self, state: &Arc<dyn StateStore>) -> Result<(), BoxError> {
        let path = self.config.state_folder.join(FILTER_FILE);
        let wanted = serde_json::to_vec(&self.config.cluster.follower_filter)?;
        let known = match std::fs::read(&path) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if state.pins() > 0 {
            let pins = hold_again(state.as_ref(), &self.effect()).await?;
            tracing::info!(pins, "chose anew what this follower holds: its filter is another one");
        }
        self.config.folder.write_file(&path, &wanted)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cluster_types::parse_peer_id;

    use super::*;
    use crate::config::{ConfigFolder, ConsensusName, NewConfig};

    #[test]
    fn trust_follows_the_configuration() {
        let place = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(place.path());
        let peer = parse_peer_id("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA").unwrap();
        let variables = std::collections::BTreeMap::new();
        let of = |consensus, peers| {
            let new = NewConfig { consensus, peers, ..NewConfig::with_new_secret() };
            trust(&new.write(&folder, &variables).unwrap().config)
        };
        assert_eq!(of(ConsensusName::Crdt, vec![]), Trust::Everyone);
        assert_eq!(of(ConsensusName::Crdt, vec![peer]), Trust::Only(BTreeSet::from([peer])));
        assert_eq!(of(ConsensusName::Raft, vec![]), Trust::Everyone);
    }
}
