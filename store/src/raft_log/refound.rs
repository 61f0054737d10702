//! The log of a peer that founds a new cluster with what it holds of a lost one.

use std::io;
use std::sync::Arc;

use cluster_core::consensus::log::{LogId, Refounding, StoredMembership};
use cluster_types::BoxError;
use futures::StreamExt;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use rocksdb::WriteBatch;

use super::{Kept, RaftLog, Vote, encode};
use crate::codec;
use crate::engine::Engine;
use crate::keys::{self, Family};
use crate::log_writer::Ends;

/// What a log holds that is not applied.
#[derive(Clone, Debug, Default)]
pub struct LogSurvey {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry, or the last applied one when that is later.
    pub last: Option<LogId>,
    /// Number of entries that are not applied.
    pub unapplied_entries: u64,
    /// Number of operations in them.
    pub unapplied_operations: u64,
    /// The last membership in them.
    pub membership: Option<StoredMembership>,
}

impl RaftLog {
    /// Looks at what comes after the last applied entry.
    pub async fn survey(&self, applied: Option<LogId>) -> Result<LogSurvey, BoxError> {
        let Kept { vote, last, .. } = self.shared.kept.lock().clone();
        let mut survey = LogSurvey { vote, last: last.max(applied), ..LogSurvey::default() };
        let from = applied.map_or(0, |applied| applied.index + 1);
        let mut entries = std::pin::pin!(Arc::clone(&self.shared).chunks((from, None), |_| Ok::<(), io::Error>(())));
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            survey.unapplied_entries += 1;
            match entry.payload {
                EntryPayload::Normal(payload) => survey.unapplied_operations += payload.operations.len() as u64,
                EntryPayload::Membership(membership) => {
                    survey.membership = Some(StoredMembership::new(Some(entry.log_id), membership));
                }
                EntryPayload::Blank => {}
            }
        }
        Ok(survey)
    }

    /// Makes this peer the founder of a new cluster: raft id, vote and entry in one batch, flushed. `applied` is the
    /// last applied entry.
    pub async fn refound(&self, new: Refounding, applied: Option<LogId>) -> Result<(), BoxError> {
        let last = self.shared.kept.lock().last;
        if let Some(applied) = applied.filter(|applied| last < Some(*applied)) {
            // A snapshot was installed, and what it replaces not removed yet, which any start would do.
            self.clone().purge(applied).await?;
        }
        let (vote, entry) = (encode(&new.vote)?, encode(&new.entry)?);
        let index = new.entry.log_id.index;
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            engine.put(batch, Family::RaftMeta, keys::NODE_ID, codec::encode_number(new.node_id));
            engine.put(batch, Family::RaftMeta, keys::VOTE, vote);
            engine.put(batch, Family::RaftLog, keys::log_index(index), entry);
            Ok(())
        };
        self.shared.writer.write(Ends::Flushed, fill).await?;
        let mut kept = self.shared.kept.lock();
        (kept.vote, kept.last) = (Some(new.vote), Some(new.entry.log_id));
        self.shared.written.send_replace(index + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cluster_core::consensus::log::{Holdings, LogEntry, Node};
    use cluster_core::consensus::operation::{Entry, Operation, Proposed};
    use cluster_core::ports::NodeIdRecord;
    use cluster_types::{PeerId, Timestamp};
    use openraft::Membership;
    use openraft::RaftLogReader;
    use openraft::storage::IOFlushed;
    use tempfile::TempDir;

    use super::*;
    use crate::{Store, StoreOptions};

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(term.into(), index)
    }

    fn write(term: u64, index: u64, operations: usize) -> LogEntry {
        let operations = vec![Proposed { id: [7; 16], operation: Operation::Reserve }; operations];
        let payload = EntryPayload::Normal(Entry { time: Timestamp::from_unix_seconds(1), operations });
        openraft::Entry { log_id: id(term, index), payload }
    }

    fn open(folder: &TempDir) -> (Store, RaftLog) {
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let log = store.raft_log();
        (store, log)
    }

    #[tokio::test]
    async fn what_was_in_the_log_stays_and_the_founder_comes_after_it() {
        let folder = TempDir::new().unwrap();
        let (store, mut log) = open(&folder);
        let own = Node { peer: PeerId::random(), addresses: Vec::new() };
        let nodes: BTreeMap<u64, Node> = [1, 2, 3].map(|id| (id, own.clone())).into();
        let membership = Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes).unwrap();
        let changed: LogEntry =
            openraft::Entry { log_id: id(4, 8), payload: EntryPayload::Membership(membership.clone()) };
        let entries = vec![write(3, 5, 1), write(3, 6, 2), write(4, 7, 3), changed, write(4, 9, 4)];
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.save_vote(&Vote::new(9, 2)).await.unwrap();
        log.save(2).await.unwrap();

        let survey = log.survey(Some(id(3, 6))).await.unwrap();
        assert_eq!((survey.unapplied_entries, survey.unapplied_operations), (3, 7));
        assert_eq!((survey.last, survey.vote), (Some(id(4, 9)), Some(Vote::new(9, 2))));
        let found = survey.membership.unwrap();
        assert_eq!((found.membership(), *found.log_id()), (&membership, Some(id(4, 8))));

        let holdings = Holdings { node_id: 2, vote: survey.vote, last: survey.last, membership: found };
        let new = holdings.refound(own, 77);
        log.refound(new.clone(), Some(id(3, 6))).await.unwrap();
        // Not closed: what was not flushed would be lost, as with a kill.
        drop((store, log));
        let (store, mut log) = open(&folder);
        assert_eq!(log.load().await.unwrap(), Some(new.node_id));
        assert_eq!(log.read_vote().await.unwrap(), Some(new.vote));
        let kept = log.try_get_log_entries(5..).await.unwrap();
        assert_eq!(
            kept.iter().map(|entry| entry.log_id).collect::<Vec<_>>(),
            [id(3, 5), id(3, 6), id(4, 7), id(4, 8), id(4, 9), id(10, 10)]
        );
        assert_eq!(kept.last(), Some(&new.entry));
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_log_behind_the_state_leaves_no_hole() {
        let folder = TempDir::new().unwrap();
        let (store, mut log) = open(&folder);
        log.append(vec![write(1, 1, 1), write(1, 2, 1)], IOFlushed::noop()).await.unwrap();
        let applied = Some(id(2, 50));
        let survey = log.survey(applied).await.unwrap();
        assert_eq!((survey.last, survey.unapplied_entries), (applied, 0));
        let membership = StoredMembership::default();
        let holdings = Holdings { node_id: 2, vote: None, last: survey.last, membership };
        log.refound(holdings.refound(Node { peer: PeerId::random(), addresses: Vec::new() }, 1), applied)
            .await
            .unwrap();
        drop((store, log));
        let (_store, mut log) = open(&folder);
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (applied, Some(id(3, 51))));
        assert_eq!(log.try_get_log_entries(0..).await.unwrap().len(), 1);
    }
}
