//! A raft log in memory that knows the difference between written and durable.
//!
//! A flush can take its time ([`MemLog::set_flush_time`]), one after the other as on a disk, and [`MemLog::power_cut`]
//! and [`MemLog::reopened`] throw away what was not flushed, as a machine does. A clone shares the same "disk".

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;
use std::io;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use cluster_types::BoxError;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::{Crash, MemState};
use crate::consensus::log::{LogId, TypeConfig, Vote};
use crate::task::{OnExit, TaskGroup};

/// An entry of the log.
pub type LogEntry = openraft::alias::EntryOf<TypeConfig>;

/// What is done to a log, told before it is.
#[derive(Clone, Copy, Debug)]
pub enum LogEvent<'a> {
    /// An entry is written. The one before it, if there is one and it was not purged.
    Append(Option<&'a LogEntry>, &'a LogEntry),
    /// A vote is saved.
    Vote(&'a Vote),
}

/// Who is told.
pub type LogObserver = Arc<dyn Fn(LogEvent<'_>) + Send + Sync>;

#[derive(Clone, Debug, Default)]
struct Disk {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Arc<LogEntry>>,
}

#[derive(Default)]
struct Shared {
    written: Disk,
    durable: Disk,
    lie_about_flush: bool,
    flush_time: Option<(Range<Duration>, StdRng)>,
    /// The state in the same write-ahead log: a flush is a flush of both.
    state: Option<MemState>,
    observer: Option<LogObserver>,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("written", &self.written).finish_non_exhaustive()
    }
}

/// The double of the raft log.
#[derive(Clone, Debug, Default)]
pub struct MemLog {
    shared: Arc<Mutex<Shared>>,
    /// One flush at a time, in the order of writing.
    flushing: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskGroup,
}

/// Which places of the log are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The last entry that was removed because a snapshot has it.
    pub purged: Option<LogId>,
    /// The last entry.
    pub last: Option<LogId>,
    /// The vote.
    pub vote: Option<Vote>,
}

impl MemLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// A log in the same write-ahead log as `state`: flushing the one flushes the other.
    pub fn beside(state: MemState) -> Self {
        let log = Self::default();
        log.shared.lock().state = Some(state);
        log
    }

    /// From now on appends are reported as durable without being so: a disk that lies, or a planted bug.
    pub fn lie_about_flush(&self) {
        self.shared.lock().lie_about_flush = true;
    }

    /// From now on the flush after an append takes a time from this range.
    pub fn set_flush_time(&self, range: Range<Duration>, seed: u64) {
        self.shared.lock().flush_time = Some((range, StdRng::seed_from_u64(seed)));
    }

    /// From now on `observer` is told what is done.
    pub fn observe(&self, observer: LogObserver) {
        self.shared.lock().observer = Some(observer);
    }

    /// Loses everything that was not flushed.
    pub fn power_cut(&self) {
        let mut shared = self.shared.lock();
        shared.written = shared.durable.clone();
    }

    /// The disk as the next start finds it; what still runs on this one reaches it no more. `state` is in the same
    /// write-ahead log.
    pub fn reopened(&self, crash: Crash, state: MemState) -> Self {
        let (written, durable) = {
            let shared = self.shared.lock();
            let written = match crash {
                Crash::Killed => shared.written.clone(),
                Crash::PowerCut => shared.durable.clone(),
            };
            (written, shared.durable.clone())
        };
        let log = Self::beside(state);
        {
            let mut shared = log.shared.lock();
            (shared.written, shared.durable) = (written, durable);
        }
        log
    }

    /// What is there: `durable` says whether only what would survive a power cut.
    pub fn extent(&self, durable: bool) -> Extent {
        let shared = self.shared.lock();
        let disk = if durable { &shared.durable } else { &shared.written };
        let last = disk.entries.values().next_back().map(|entry| entry.log_id);
        Extent { purged: disk.purged, last: last.or(disk.purged), vote: disk.vote }
    }

    /// Whether an entry would survive a power cut, here or in a snapshot.
    pub fn is_durable(&self, id: LogId) -> bool {
        let shared = self.shared.lock();
        let kept = shared.durable.entries.get(&id.index()).is_some_and(|entry| entry.log_id == id);
        kept || shared.durable.purged.is_some_and(|purged| purged.index() >= id.index())
    }

    fn flush(&self) {
        let mut shared = self.shared.lock();
        shared.durable = shared.written.clone();
        if let Some(state) = &shared.state {
            state.sync();
        }
    }

    fn tell(&self, event: LogEvent<'_>) {
        let observer = self.shared.lock().observer.clone();
        if let Some(observer) = observer {
            observer(event);
        }
    }

    fn write(&self, entry: LogEntry) {
        let before = {
            let shared = self.shared.lock();
            let before = entry.log_id.index().checked_sub(1);
            before.and_then(|index| shared.written.entries.get(&index).cloned())
        };
        self.tell(LogEvent::Append(before.as_deref(), &entry));
        self.shared.lock().written.entries.insert(entry.log_id.index(), Arc::new(entry));
    }

    /// How long the next flush takes, if it takes any time.
    fn flush_time(&self) -> Option<Duration> {
        let mut shared = self.shared.lock();
        let (range, chance) = shared.flush_time.as_mut()?;
        Some(chance.random_range(range.clone()))
    }
}

impl RaftLogReader<TypeConfig> for MemLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.shared.lock().written.entries.range(range).map(|(_, entry)| entry.as_ref().clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.lock().written.vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let Extent { purged, last, .. } = self.extent(false);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.tell(LogEvent::Vote(vote));
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
        entries.into_iter().for_each(|entry| self.write(entry));
        if self.shared.lock().lie_about_flush {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let Some(time) = self.flush_time() else {
            self.flush();
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let log = self.clone();
        self.tasks.spawn("flush in memory", OnExit::Continue, async move {
            let _turn = log.flushing.lock().await;
            sleep(time).await;
            log.flush();
            callback.io_completed(Ok(()));
            Ok::<(), BoxError>(())
        });
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
