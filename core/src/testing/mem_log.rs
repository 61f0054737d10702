//! A raft log in memory that knows the difference between written and durable.
//!
//! [`MemLog::power_cut`] throws away what was not flushed, as a machine does; a clone shares the same "disk".

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;

use crate::consensus::log::{LogId, TypeConfig, Vote};

type LogEntry = openraft::alias::EntryOf<TypeConfig>;

#[derive(Clone, Debug, Default)]
struct Disk {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, LogEntry>,
}

#[derive(Debug, Default)]
struct Shared {
    written: Disk,
    durable: Disk,
    lie_about_flush: bool,
}

/// The double of the raft log.
#[derive(Clone, Debug, Default)]
pub struct MemLog {
    shared: Arc<Mutex<Shared>>,
}

impl MemLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on appends are reported as durable without being so: a disk that lies, or a planted bug.
    pub fn lie_about_flush(&self) {
        self.shared.lock().lie_about_flush = true;
    }

    /// Loses everything that was not flushed.
    pub fn power_cut(&self) {
        let mut shared = self.shared.lock();
        shared.written = shared.durable.clone();
    }

    fn flush(&self) {
        let mut shared = self.shared.lock();
        shared.durable = shared.written.clone();
    }
}

impl RaftLogReader<TypeConfig> for MemLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.shared.lock().written.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.lock().written.vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let shared = self.shared.lock();
        let last = shared.written.entries.values().next_back().map(|entry| entry.log_id);
        let purged = shared.written.purged;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.shared.lock().written.vote = Some(*vote);
        self.flush();
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.lock().written.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.lock().written.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let lie = {
            let mut shared = self.shared.lock();
            for entry in entries {
                shared.written.entries.insert(entry.log_id.index(), entry);
            }
            shared.lie_about_flush
        };
        if !lie {
            self.flush();
        }
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first_gone = last.map_or(0, |last| last.index() + 1);
        drop(self.shared.lock().written.entries.split_off(&first_gone));
        self.flush();
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut shared = self.shared.lock();
            shared.written.purged = Some(upto);
            shared.written.entries = shared.written.entries.split_off(&(upto.index() + 1));
        }
        self.flush();
        Ok(())
    }
}
