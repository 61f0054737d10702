//! Makes a stopped peer the founder of a new cluster, when most voters of its own are lost for good.
//!
//! The caller holds the folder's execution lock; the store has a lock of its own besides.

use std::path::Path;

use cluster_core::consensus::log::{AppliedPosition, Holdings, Node, Refounding};
use cluster_core::ports::{NodeIdRecord, StateStore};
use cluster_store::{LogSurvey, Store, StoreOptions};
use cluster_types::{BoxError, PeerId};

/// What the new cluster begins with, and what it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// This peer.
    pub peer: PeerId,
    /// Whether it votes in the old cluster; `None`: it is no member.
    pub votes: Option<bool>,
    /// Its raft id in the old cluster.
    pub old_id: u64,
    /// Its raft id in the new one.
    pub new_id: u64,
    /// Term and index of its last entry.
    pub last: (u64, u64),
    /// Index of the last entry that was applied here, and so is known to have been on a majority.
    pub applied: u64,
    /// Entries after that one. They are kept.
    pub unproven_entries: u64,
    /// Writes in those entries.
    pub unproven_operations: u64,
    /// Number of pins before those entries are applied.
    pub pins: u64,
    /// The members that are dropped, and whether each of them votes.
    pub dropped: Vec<(PeerId, bool)>,
}

/// A recovery that was looked at and not begun.
#[derive(Debug)]
pub struct Recovery {
    store: Store,
    applied: AppliedPosition,
    new: Refounding,
    report: RecoveryReport,
}

impl Recovery {
    /// Looks at what is in `folder`. Changes nothing but to finish the install of a snapshot that was cut off, as any
    /// start does. An error when there is no state, `None` when this peer is the only member already.
    pub async fn look(folder: &Path, peer: PeerId) -> Result<Option<Self>, BoxError> {
        if !Store::exists(folder) {
            return Err(format!("there is no state in {}: this peer has never been started", folder.display()).into());
        }
        let place = folder.to_owned();
        let store = tokio::task::spawn_blocking(move || Store::open(&place, StoreOptions::default())).await??;
        match plan(&store, peer).await {
            Ok(Some((applied, new, report))) => Ok(Some(Self { store, applied, new, report })),
            other => {
                store.close().await?;
                other.map(|_nothing_to_do| None)
            }
        }
    }

    /// What it would do.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Does it, all or nothing.
    pub async fn carry_out(self) -> Result<(), BoxError> {
        let done = self.store.raft_log().refound(self.new, self.applied.last).await;
        self.store.close().await?;
        done
    }

    /// Leaves everything as it is.
    pub async fn abandon(self) -> Result<(), BoxError> {
        Ok(self.store.close().await?)
    }
}

async fn plan(store: &Store, peer: PeerId) -> Result<Option<(AppliedPosition, Refounding, RecoveryReport)>, BoxError> {
    let (log, state) = (store.raft_log(), store.state());
    let applied = AppliedPosition::decode(state.applied().await?.as_ref())?;
    let LogSurvey { vote, last, unapplied_entries, unapplied_operations, membership } =
        log.survey(applied.last).await?;
    let membership = membership.unwrap_or_else(|| applied.membership.clone());
    let node_id = log.load().await?;
    let (Some(node_id), true) = (node_id, membership.membership().nodes().next().is_some()) else {
        return Err("this peer has never been a member of a cluster: there is nothing to recover".into());
    };
    let holdings = Holdings { node_id, vote, last, membership };
    let others = holdings.others();
    if others.is_empty() && holdings.votes() == Some(true) {
        return Ok(None);
    }
    let own = holdings.membership.membership().get_node(&node_id).cloned();
    let new = holdings.refound(own.unwrap_or(Node { peer, addresses: Vec::new() }), rand::random());
    let report = RecoveryReport {
        peer,
        votes: holdings.votes(),
        old_id: node_id,
        new_id: new.node_id,
        last: last.map_or((0, 0), |last| (**last.committed_leader_id(), last.index())),
        applied: applied.index(),
        unproven_entries: unapplied_entries,
        unproven_operations: unapplied_operations,
        pins: state.pins(),
        dropped: others
            .into_values()
            .map(|(node, votes)| (node.peer, votes))
            .filter(|(other, _)| *other != peer)
            .collect(),
    };
    Ok(Some((applied, new, report)))
}
