//! The raft log on RocksDB: openraft's log storage.
//!
//! Vote and entries go through one write-ahead log in the order of the calls, by the one thread of
//! [`crate::log_writer`]. An appended entry can be read at once, from memory, is applied once it is written, and
//! counts once it is flushed; a vote is flushed before it returns. Which entries are committed is not kept: what is
//! applied is written with each entry, and the rest comes from the leader.
//!
//! **Invariant:** no read holds more than [`CHUNK_BYTES`] of entries but the one openraft wants whole.

mod refound;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use async_trait::async_trait;
use cluster_core::consensus::log::{LogId, TypeConfig};
use cluster_core::ports::{NodeIdRecord, StateError};
use cluster_types::BoxError;
use futures::{Stream, StreamExt};
use openraft::alias::{EntryOf, LeaderIdOf, VoteOf};
use openraft::errors::LeaderChanged;
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::blocking::{Door, Kind};
use crate::codec;
use crate::engine::Engine;
use crate::keys::{self, Family};
use crate::log_writer::{Ends, LogWriter, Write};
use crate::recent::Recent;
use crate::state::Database;

pub use refound::LogSurvey;

/// Version of an encoded entry, vote or position.
const VERSION: u8 = 1;
/// Bytes of entries read at a time, if one entry is not longer.
const CHUNK_BYTES: usize = 1 << 20;

type Entry = EntryOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

/// openraft's log storage; clones share it.
#[derive(Clone, Debug)]
pub struct RaftLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    door: Arc<Door<Database>>,
    kept: Mutex<Kept>,
    recent: Arc<Mutex<Recent<Entry>>>,
    /// The number of entries known to survive the process: the index after the last one written.
    written: Arc<watch::Sender<u64>>,
    writer: LogWriter,
}

/// What is known of the log without reading it.
#[derive(Clone, Debug, Default)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl RaftLog {
    /// Reads the ends of the log.
    pub(crate) fn open(door: Arc<Door<Database>>) -> Result<Self, StateError> {
        let kept = door.call(|database| Kept::load(&database.engine))?;
        let writer = LogWriter::start(Arc::clone(&door))?;
        let written = Arc::new(watch::Sender::new(kept.last.map_or(0, |last| last.index + 1)));
        let shared = Shared { door, kept: Mutex::new(kept), recent: Arc::default(), written, writer };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends the writer after what waits for it.
    pub(crate) async fn stop(&self) {
        self.shared.writer.stop().await;
    }
}

impl Kept {
    fn load(engine: &Engine) -> Result<Self, StateError> {
        let read = |key| engine.get(Family::RaftMeta, key);
        let purged: Option<LogId> = read(keys::PURGED)?.map(|bytes| decode("log id", &bytes)).transpose()?;
        let first = purged.map_or(0, |purged| purged.index + 1);
        let last = engine.moment().last(Family::RaftLog, &keys::log_index(first))?;
        let last = last.map(|(_key, value)| decode::<Entry>("log entry", &value)).transpose()?;
        Ok(Self {
            vote: read(keys::VOTE)?.map(|bytes| decode("vote", &bytes)).transpose()?,
            purged,
            last: last.map(|entry| entry.log_id).or(purged),
        })
    }
}

impl Shared {
    /// Entries from `from` to before `to`, without gaps; stops after `budget` bytes.
    async fn read(&self, from: u64, to: Option<u64>, budget: Option<usize>) -> io::Result<Vec<Entry>> {
        // What is purged is skipped by its number: walking over its tombstones takes long.
        let mut from = from.max(self.kept.lock().purged.map_or(0, |purged| purged.index + 1));
        loop {
            let first = {
                let recent = self.recent.lock();
                let read = recent.read(from, to, budget);
                if !read.is_empty() {
                    return Ok(read);
                }
                recent.first()
            };
            // Older ones are on the disk: memory forgets only what is written.
            let end = first.map_or(to, |first| Some(to.map_or(first, |to| to.min(first))));
            let read = self.door.run(Kind::Urgent, move |database| read_entries(&database.engine, from, end, budget));
            let read = read.await.map_err(io::Error::other)?;
            match first {
                // A log that begins after `from`.
                Some(first) if read.is_empty() && first > from && to.is_none_or(|to| first < to) => from = first,
                Some(_) | None => return Ok(read),
            }
        }
    }

    /// Entries from `from` to before `to`, all of them.
    async fn read_all(&self, from: u64, to: Option<u64>) -> io::Result<Vec<Entry>> {
        let mut entries = self.read(from, to, None).await?;
        while let Some(last) = entries.last() {
            let next = last.log_id.index + 1;
            let more = if to.is_none_or(|to| next < to) { self.read(next, to, None).await? } else { Vec::new() };
            match more.first() {
                None => break,
                Some(first) if first.log_id.index != next => return Err(gap(next)),
                Some(_) => entries.extend(more),
            }
        }
        Ok(entries)
    }

    /// Returns when the entries before `end` survive the process.
    async fn wait_until_written(&self, end: u64) -> io::Result<()> {
        let mut written = self.written.subscribe();
        let reached = written.wait_for(|written| *written >= end || self.writer.refuse_after_failure().is_err());
        drop(reached.await.map_err(io::Error::other)?);
        self.writer.refuse_after_failure()
    }

    /// Entries in chunks, checking before each that `still` holds.
    fn chunks<E, F>(
        self: Arc<Self>,
        range: (u64, Option<u64>),
        check: F,
    ) -> impl Stream<Item = Result<Entry, E>> + Send + 'static
    where
        E: From<io::Error> + Send + 'static,
        F: Fn(&Self) -> Result<(), E> + Send + 'static,
    {
        async_stream::try_stream! {
            let (mut next, end) = range;
            let mut begun = false;
            check(&self)?;
            while end.is_none_or(|end| next < end) {
                let chunk = self.read(next, end, Some(CHUNK_BYTES)).await?;
                check(&self)?;
                let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { break };
                if begun && first.log_id.index != next {
                    Err(gap(next))?;
                }
                begun = true;
                next = last.log_id.index + 1;
                for entry in chunk {
                    yield entry;
                }
            }
        }
    }
}

fn read_entries(engine: &Engine, from: u64, to: Option<u64>, budget: Option<usize>) -> Result<Vec<Entry>, StateError> {
    let to = to.map(keys::log_index);
    if to.is_some_and(|to| to <= keys::log_index(from)) {
        return Ok(Vec::new());
    }
    let moment = engine.moment();
    let mut rows = moment.rows(Family::RaftLog, &keys::log_index(from), to.as_ref().map(<[u8; 8]>::as_slice));
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    while let Some((_key, value)) = rows.next()? {
        bytes += value.len();
        if budget.is_some_and(|budget| bytes > budget && !entries.is_empty()) {
            break;
        }
        let entry: Entry = decode("log entry", &value)?;
        if let Some(before) = entries.last()
            && before.log_id.index + 1 != entry.log_id.index
        {
            return Err(codec::damaged("log", gap(before.log_id.index + 1)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = ends(&range);
        self.shared.read_all(from, to).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.kept.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.shared.read(start, Some(end), Some(CHUNK_BYTES)).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // This is what is applied. Were the state written before the entries it comes from, a crash in between would
        // leave a state ahead of its log.
        let shared = Arc::clone(&self.shared);
        let (from, to) = ends(&range);
        Box::pin(async_stream::try_stream! {
            let end = shared.kept.lock().last.map_or(0, |last| last.index + 1);
            shared.wait_until_written(to.map_or(end, |to| to.min(end))).await?;
            let mut chunks = std::pin::pin!(shared.chunks((from, to), |_shared| Ok::<(), io::Error>(())));
            let mut next = from;
            while let Some(entry) = chunks.next().await {
                let entry = entry?;
                if entry.log_id.index != next {
                    Err(gap(next))?;
                }
                next += 1;
                yield entry;
            }
        })
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<TypeConfig>,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, LeaderBoundedStreamError<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Box::pin(Arc::clone(&self.shared).chunks(ends(&range), move |shared: &Shared| {
            let vote = shared.kept.lock().vote;
            let leads = vote.is_some_and(|vote| vote.leader_id == leader && vote.committed);
            if leads { Ok(()) } else { Err(LeaderChanged::new(leader, vote).into()) }
        }))
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let kept = self.shared.kept.lock();
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: kept.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode(vote)?;
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            engine.put(batch, Family::RaftMeta, keys::VOTE, bytes);
            Ok(())
        };
        self.shared.writer.write(Ends::Flushed, fill).await?;
        self.shared.kept.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.writer.refuse_after_failure()?;
        let mut rows = Vec::new();
        let mut last = None;
        {
            let mut recent = self.shared.recent.lock();
            for entry in entries {
                let (index, value) = (entry.log_id.index, encode(&entry)?);
                last = Some(entry.log_id);
                recent.push(index, value.len(), entry);
                rows.push((keys::log_index(index), value));
            }
        }
        if let Some(last) = last {
            self.shared.kept.lock().last = Some(last);
        }
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            for (key, value) in rows {
                engine.put(batch, Family::RaftLog, key, value);
            }
            Ok(())
        };
        let (recent, written) = (Arc::clone(&self.shared.recent), Arc::clone(&self.shared.written));
        let on_written = move |end: Result<(), String>| match (end, last) {
            (Ok(()), Some(last)) => {
                recent.lock().written(last.index);
                written.send_replace(last.index + 1);
            }
            // Whoever waits finds the failure.
            (Ok(()) | Err(_), _) => written.send_modify(|_written| {}),
        };
        let on_flushed = move |end: Result<(), String>| callback.io_completed(end.map_err(io::Error::other));
        let (written, flushed) = (Box::new(on_written), Box::new(on_flushed));
        self.shared.writer.begin(Write { fill: Box::new(fill), written: Some(written), flushed: Some(flushed) }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let Kept { purged, last: end, .. } = self.shared.kept.lock().clone();
        let Some(end) = end else { return Ok(()) };
        let first = last_log_id.map_or(0, |last| last.index + 1);
        if first > end.index {
            return Ok(());
        }
        self.shared.recent.lock().truncate_after(last_log_id.map(|last| last.index));
        self.shared.kept.lock().last = last_log_id.or(purged);
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            let to = keys::log_index(end.index + 1);
            engine.delete_range(batch, Family::RaftLog, &keys::log_index(first), &to);
            Ok(())
        };
        self.shared.writer.write(Ends::Written, fill).await?;
        // What takes the places of the entries that went is not written yet.
        self.shared.written.send_modify(|written| *written = first.min(*written));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let bytes = encode(&log_id)?;
        let first = self.shared.kept.lock().purged.map_or(0, |purged| purged.index + 1);
        if log_id.index < first {
            return Ok(());
        }
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            engine.put(batch, Family::RaftMeta, keys::PURGED, bytes);
            let to = keys::log_index(log_id.index + 1);
            engine.delete_range(batch, Family::RaftLog, &keys::log_index(first), &to);
            Ok(())
        };
        self.shared.writer.write(Ends::Written, fill).await?;
        self.shared.recent.lock().purge(log_id.index);
        self.shared.written.send_modify(|written| *written = (log_id.index + 1).max(*written));
        let mut kept = self.shared.kept.lock();
        kept.purged = Some(log_id);
        if kept.last.is_none_or(|last| last.index < log_id.index) {
            kept.last = Some(log_id);
        }
        Ok(())
    }
}

#[async_trait]
impl NodeIdRecord for RaftLog {
    async fn load(&self) -> Result<Option<u64>, BoxError> {
        let value = self.shared.door.run(Kind::Urgent, |database| {
            let value = database.engine.get(Family::RaftMeta, keys::NODE_ID)?;
            value.map(|bytes| codec::decode_number("raft id", &bytes)).transpose()
        });
        Ok(value.await?)
    }

    async fn save(&self, node_id: u64) -> Result<(), BoxError> {
        let fill = move |engine: &Engine, batch: &mut WriteBatch| {
            engine.put(batch, Family::RaftMeta, keys::NODE_ID, codec::encode_number(node_id));
            Ok(())
        };
        Ok(self.shared.writer.write(Ends::Flushed, fill).await?)
    }
}

/// First index and the one after the last.
fn ends(range: &impl RangeBounds<u64>) -> (u64, Option<u64>) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => to.checked_add(1),
        Bound::Excluded(to) => Some(*to),
        Bound::Unbounded => None,
    };
    (from, to)
}

fn gap(index: u64) -> io::Error {
    io::Error::other(format!("entry {index} is missing"))
}

/// A value with its version in front.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Reads a value with its version in front.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StateError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => rmp_serde::from_slice(rest).map_err(|error| codec::damaged(what, error)),
        _ => Err(codec::damaged(what, "unknown version")),
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::consensus::operation::{self, Operation, Proposed};
    use cluster_types::Timestamp;
    use openraft::EntryPayload;

    use super::*;

    #[tokio::test]
    async fn what_is_not_written_yet_is_read_but_not_applied() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = crate::Store::open(folder.path(), crate::StoreOptions::default()).unwrap();
        let mut log = store.raft_log();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let slow = Box::new(move |_: &Engine, _: &mut WriteBatch| {
            let _gone = may_go_on.recv();
            Ok(())
        });
        log.shared.writer.begin(Write { fill: slow, written: None, flushed: None }).await.unwrap();
        let payload = EntryPayload::Normal(operation::Entry { time: Timestamp::ZERO, operations: Vec::new() });
        let entry: Entry = openraft::Entry { log_id: LogId::new(1.into(), 0), payload };
        log.append([entry.clone()], IOFlushed::noop()).await.unwrap();
        assert_eq!(log.try_get_log_entries(0..1).await.unwrap(), std::slice::from_ref(&entry));
        let mut reader = log.clone();
        let mut applied = reader.entries_stream(0..1).await;
        assert!(futures::poll!(applied.next()).is_pending(), "it is not on its way to the disk before this");
        go_on.send(()).unwrap();
        assert_eq!(applied.next().await.unwrap().unwrap(), entry);
    }

    #[test]
    fn entries_and_votes_are_as_their_golden_files() {
        let operations = vec![Proposed { id: [7; 16], operation: Operation::Reserve }];
        let payload = EntryPayload::Normal(operation::Entry { time: Timestamp::from_unix_seconds(1), operations });
        let entry: Entry = openraft::Entry { log_id: LogId::new(3.into(), 9), payload };
        let vote = Vote::new_committed(3, 9);
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(encode(&entry).unwrap()), include_str!("../tests/golden/entry-v1.hex").trim());
        assert_eq!(hex(encode(&vote).unwrap()), include_str!("../tests/golden/vote-v1.hex").trim());
        assert_eq!(decode::<Entry>("entry", &encode(&entry).unwrap()).unwrap(), entry);
        assert!(decode::<Entry>("entry", &[2]).is_err());
    }
}
