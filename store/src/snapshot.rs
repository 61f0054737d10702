//! Frozen states: made as checkpoints (hard links), sent as one sorted stream, received into a file.
//!
//! Folders under `snapshots`, each with a number that grows: `…-making` and `…-incoming` are rubbish after a crash,
//! `…-received` is whole and checked, `…-frozen` is the last frozen state (an older one is rubbish). A folder gets its
//! final name by one rename, when what is in it is on the disk.
//!
//! **Invariant:** one lock, held through making and installing a snapshot and while a checked one gets its place, guards
//! the folders.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{RequestKey, ShardState, SnapshotHandle, SnapshotReceiver, StateError};
use cluster_types::{ErrorChain, Pin};
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock};

use crate::blocking::{Door, Kind};
use crate::engine::Engine;
use crate::error::Failed;
use crate::frames::{self, Encoder, invalid};
use crate::keys::{self, Family};
use crate::merging::LogPins;
use crate::peers::Dictionary;
use crate::state::{Database, read_applied, read_shards};
use crate::stream::{self, Outlet, Stop};
use crate::{codec, merge_frames, verify};

/// The most a chunk may hold, as the port promises.
const CHUNK: usize = 1 << 20;
/// The file of a received snapshot.
pub(crate) const STREAM_FILE: &str = "stream";
/// The applied position of a received snapshot.
const APPLIED_FILE: &str = "applied";
/// The checkpoint of a frozen state that was made here.
const CHECKPOINT_FOLDER: &str = "db";

/// The last frozen state and the one received last.
#[derive(Debug)]
pub(crate) struct Snapshots {
    folder: PathBuf,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: u64,
    pub(crate) current: Option<Arc<Frozen>>,
    pub(crate) received: Option<Arc<Frozen>>,
}

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Making,
    Incoming,
    Received,
    Frozen,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Making, Self::Incoming, Self::Received, Self::Frozen];

    fn suffix(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Incoming => "incoming",
            Self::Received => "received",
            Self::Frozen => "frozen",
        }
    }
}

/// The folder of a snapshot.
pub(crate) fn folder_of(folder: &Path, number: u64, stage: Stage) -> PathBuf {
    folder.join(format!("{number:020}-{}", stage.suffix()))
}

fn read_name(name: &str) -> Option<(u64, Stage)> {
    let (number, suffix) = name.split_once('-')?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.suffix() == suffix)?;
    Some((number.parse().ok()?, stage))
}

impl Snapshots {
    /// Finds the last frozen state and clears away the rest, and also that one when it cannot be read: it can be made
    /// again. No install is cut off any more.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, StateError> {
        fs::create_dir_all(&folder).failed_to("make the folder of snapshots")?;
        let mut frozen = Vec::new();
        let mut next = 1;
        for entry in fs::read_dir(&folder).failed_to("list snapshots")? {
            let entry = entry.failed_to("list snapshots")?;
            let Some((number, stage)) = entry.file_name().to_str().and_then(read_name) else { continue };
            next = next.max(number.saturating_add(1));
            if stage == Stage::Frozen {
                frozen.push((number, entry.path()));
            } else {
                fs::remove_dir_all(entry.path()).failed_to("clear away a snapshot")?;
            }
        }
        frozen.sort();
        let last = frozen.pop();
        for (_number, old) in frozen {
            fs::remove_dir_all(old).failed_to("clear away a snapshot")?;
        }
        let current = last.and_then(|(number, place)| open_or_drop(number, place)).map(Arc::new);
        let registry = Registry { next, current, received: None };
        Ok(Self { folder, registry: Arc::new(Mutex::new(registry)) })
    }

    /// Where the snapshots are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last frozen state.
    pub(crate) async fn current(&self) -> Option<Arc<dyn SnapshotHandle>> {
        let registry = self.registry.lock().await;
        registry.current.clone().map(|frozen| frozen as Arc<dyn SnapshotHandle>)
    }

    /// Freezes the present state. Updates go on meanwhile: a batch is in the checkpoint whole or not at all.
    pub(crate) async fn make(&self, door: &Door<Database>) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        let mut registry = Arc::clone(&self.registry).lock_owned().await;
        let number = registry.take_number();
        let folder = self.folder.clone();
        door.run(Kind::Urgent, move |database| {
            let making = folder_of(&folder, number, Stage::Making);
            fs::create_dir(&making).failed_to("make a snapshot")?;
            database.engine.checkpoint(&making.join(CHECKPOINT_FOLDER))?;
            let place = folder_of(&folder, number, Stage::Frozen);
            rename_durably(&making, &place)?;
            let frozen = Arc::new(Frozen::open(number, place)?);
            registry.replace_current(Arc::clone(&frozen));
            Ok(frozen as Arc<dyn SnapshotHandle>)
        })
        .await
    }

    /// Begins to take in a snapshot.
    pub(crate) async fn receive(&self) -> Result<Box<dyn SnapshotReceiver>, StateError> {
        let mut registry = self.registry.lock().await;
        let number = registry.take_number();
        let folder = self.folder.clone();
        clear_incoming(&folder).await.failed_to("drop an unfinished snapshot")?;
        let incoming = folder_of(&folder, number, Stage::Incoming);
        tokio::fs::create_dir(&incoming).await.failed_to("receive a snapshot")?;
        let file = tokio::fs::File::create_new(incoming.join(STREAM_FILE)).await.failed_to("receive a snapshot")?;
        Ok(Box::new(Receiver { number, folder, incoming, file, registry: Arc::clone(&self.registry) }))
    }
}

impl Registry {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Whether `snapshot` is the one received last.
    pub(crate) fn is_received(&self, snapshot: &Arc<dyn SnapshotHandle>) -> bool {
        let address = Arc::as_ptr(snapshot).cast::<()>();
        self.received.as_ref().is_some_and(|received| std::ptr::eq(Arc::as_ptr(received).cast::<()>(), address))
    }

    /// Makes `frozen` the last frozen state; the folder of the one before goes with its last reader.
    pub(crate) fn replace_current(&mut self, frozen: Arc<Frozen>) {
        if let Some(old) = self.current.replace(frozen) {
            old.doom();
        }
    }
}

fn open_or_drop(number: u64, place: PathBuf) -> Option<Frozen> {
    let error = match Frozen::open(number, place.clone()) {
        Ok(frozen) => return Some(frozen),
        Err(error) => error,
    };
    tracing::warn!(folder = %place.display(), error = %ErrorChain(&error), "removing a frozen state that is unreadable");
    if let Err(error) = fs::remove_dir_all(&place) {
        tracing::warn!(folder = %place.display(), %error, "an unreadable frozen state stays behind");
    }
    None
}

async fn clear_incoming(folder: &Path) -> std::io::Result<()> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        if name.to_str().and_then(read_name).is_some_and(|(_number, stage)| stage == Stage::Incoming) {
            tokio::fs::remove_dir_all(entry.path()).await?;
        }
    }
    Ok(())
}

/// Renames a folder whose content is on the disk, so that the new name is too.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), StateError> {
    sync_folder(from)?;
    fs::rename(from, to).failed_to("rename a snapshot")?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Has the entries of a folder on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StateError> {
    File::open(folder).and_then(|folder| folder.sync_all()).failed_to("flush a folder")
}

/// A state that does not change any more.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) number: u64,
    pub(crate) kept: Arc<Kept>,
    applied: Bytes,
    /// Bounds how many send it at a time. Not the door of the database: it may be sent on after that is closed.
    senders: Arc<Door<()>>,
}

/// The folder of a frozen state; whoever reads it holds it.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Where it is; moves once, when a received snapshot is installed.
    pub(crate) place: parking_lot::Mutex<PathBuf>,
    doomed: AtomicBool,
}

impl Frozen {
    /// Reads what it shows; its folder is whole.
    pub(crate) fn open(number: u64, place: PathBuf) -> Result<Self, StateError> {
        let checkpoint = place.join(CHECKPOINT_FOLDER);
        let applied = if checkpoint.exists() {
            read_applied(&Engine::open_checkpoint(&checkpoint)?.moment())?.unwrap_or_default()
        } else {
            let bytes = fs::read(place.join(APPLIED_FILE)).failed_to("read a snapshot")?;
            codec::decode_opaque("applied position of a snapshot", &bytes)?
        };
        let kept = Arc::new(Kept { place: parking_lot::Mutex::new(place), doomed: AtomicBool::new(false) });
        Ok(Self { number, kept, applied, senders: Arc::new(Door::new(())) })
    }

    /// Its folder is cleared away with the last reader.
    pub(crate) fn doom(&self) {
        self.kept.doomed.store(true, Ordering::Release);
    }
}

impl Kept {
    fn source(&self) -> Result<Source, StateError> {
        let place = self.place.lock();
        let checkpoint = place.join(CHECKPOINT_FOLDER);
        if checkpoint.exists() {
            return Engine::open_checkpoint(&checkpoint).map(|engine| Source::Checkpoint(Box::new(engine)));
        }
        File::open(place.join(STREAM_FILE)).map(Source::Stream).failed_to("read a snapshot")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            // Hard links, or one file: quick. What stays behind is cleared away at the next start.
            let place = self.place.get_mut();
            if let Err(error) = fs::remove_dir_all(&*place) {
                tracing::debug!(folder = %place.display(), %error, "a superseded snapshot stays behind");
            }
        }
    }
}

enum Source {
    Checkpoint(Box<Engine>),
    Stream(File),
}

impl SnapshotHandle for Frozen {
    fn applied(&self) -> Bytes {
        self.applied.clone()
    }

    fn chunks(&self) -> BoxStream<'static, Result<Bytes, StateError>> {
        let kept = Arc::clone(&self.kept);
        let nothing_to_wait_for = Arc::new(RwLock::new(()));
        stream::from_job(Arc::clone(&self.senders), nothing_to_wait_for, move |(), _whole, outlet| {
            match kept.source()? {
                Source::Checkpoint(engine) => stream_checkpoint(&engine, outlet),
                Source::Stream(file) => stream_file(file, outlet),
            }
        })
    }
}

fn stream_file(mut file: File, outlet: &mut Outlet<Bytes>) -> Result<(), Stop> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let limit = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        file.by_ref().take(limit).read_to_end(&mut chunk).failed_to("read a snapshot")?;
        if chunk.is_empty() {
            return Ok(());
        }
        outlet.send(chunk.into())?;
    }
}

fn stream_checkpoint(engine: &Engine, outlet: &mut Outlet<Bytes>) -> Result<(), Stop> {
    let moment = engine.moment();
    let dictionary = Dictionary::load(&moment)?;
    let mut encoder = Encoder::new();
    for (shard, state) in (0_u16..).zip(read_shards(&moment)?) {
        if state != ShardState::default() {
            encoder.record(frames::SHARD, &[&keys::shard(shard), &codec::encode_shard(&state)])?;
        }
    }
    let mut pins = LogPins::new(&moment, &[], None)?;
    while let Some((key, value)) = pins.next()? {
        let pin: Pin = codec::decode_pin(keys::cid_of(&key)?, &value, |number| dictionary.peer(number, engine))?;
        encoder.record(frames::PIN, &[&cluster_core::consensus::operation::encode_pin(&pin)])?;
        send_full(&mut encoder, outlet)?;
    }
    let mut outcomes = moment.rows(Family::Outcomes, &[], None);
    while let Some((key, value)) = outcomes.next()? {
        let RequestKey { .. } = keys::read_outcome(&key)?;
        encoder.record(frames::OUTCOME, &[&key, &codec::decode_opaque("outcome", &value)?])?;
        send_full(&mut encoder, outlet)?;
    }
    let mut tails = moment.rows(Family::ShardTail, &[], None);
    while let Some((key, value)) = tails.next()? {
        encoder.record(frames::TAIL, &[&key, &value])?;
        send_full(&mut encoder, outlet)?;
    }
    merge_frames::send(&moment, &mut encoder, |encoder| send_full(encoder, outlet))?;
    let mut rest = encoder.finish();
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(CHUNK));
        outlet.send(chunk)?;
    }
    Ok(())
}

fn send_full(encoder: &mut Encoder, outlet: &mut Outlet<Bytes>) -> Result<(), Stop> {
    while let Some(chunk) = encoder.take(CHUNK) {
        outlet.send(chunk)?;
    }
    Ok(())
}

/// Takes in a snapshot.
struct Receiver {
    number: u64,
    folder: PathBuf,
    incoming: PathBuf,
    file: tokio::fs::File,
    registry: Arc<Mutex<Registry>>,
}

#[async_trait]
impl SnapshotReceiver for Receiver {
    async fn chunk(&mut self, chunk: Bytes) -> Result<(), StateError> {
        if chunk.len() > CHUNK {
            return Err(invalid(format!("a chunk of {} bytes is too long", chunk.len())));
        }
        self.file.write_all(&chunk).await.failed_to("keep a chunk of a snapshot")
    }

    async fn finish(mut self: Box<Self>, applied: Bytes) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        self.file.flush().await.failed_to("keep a snapshot")?;
        self.file.sync_all().await.failed_to("keep a snapshot")?;
        let Self { number, folder, incoming, file, registry } = *self;
        let file = file.into_std().await;
        let place = incoming.clone();
        // Takes as long as the snapshot is large; others make and read snapshots meanwhile.
        on_thread(move || check(file, &place)).await?;
        let registry = registry.lock_owned().await;
        on_thread(move || keep(number, &folder, &incoming, registry, &applied)).await
    }
}

async fn on_thread<R, F>(job: F) -> Result<R, StateError>
where
    R: Send + 'static,
    F: FnOnce() -> Result<R, StateError> + Send + 'static,
{
    let end = tokio::task::spawn_blocking(job).await;
    end.unwrap_or_else(|error| Err(StateError::Io { operation: "check a snapshot", cause: error.into() }))
}

/// Checks what came in; a bad one is cleared away.
fn check(mut file: File, incoming: &Path) -> Result<(), StateError> {
    file.rewind().failed_to("read a snapshot")?;
    verify::snapshot(BufReader::new(file)).inspect_err(|_bad| {
        if let Err(error) = fs::remove_dir_all(incoming) {
            tracing::debug!(folder = %incoming.display(), %error, "a bad snapshot stays behind until the next comes");
        }
    })
}

/// Makes the checked snapshot the one received last.
fn keep(
    number: u64,
    folder: &Path,
    incoming: &Path,
    mut registry: OwnedMutexGuard<Registry>,
    applied: &[u8],
) -> Result<Arc<dyn SnapshotHandle>, StateError> {
    if !incoming.exists() {
        return Err(invalid("another one came in its place"));
    }
    let applied_file = incoming.join(APPLIED_FILE);
    fs::write(&applied_file, codec::encode_opaque(applied)).failed_to("keep a snapshot")?;
    File::open(&applied_file).and_then(|file| file.sync_all()).failed_to("keep a snapshot")?;
    let place = folder_of(folder, number, Stage::Received);
    rename_durably(incoming, &place)?;
    let frozen = Arc::new(Frozen::open(number, place)?);
    if let Some(old) = registry.received.replace(Arc::clone(&frozen)) {
        old.doom();
    }
    Ok(frozen)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn what_came_in_is_checked_while_others_use_the_snapshots() {
        let folder = TempDir::new().unwrap();
        let snapshots = Snapshots::open(folder.path().to_owned()).unwrap();
        let mut receiver = snapshots.receive().await.unwrap();
        receiver.chunk(Bytes::from_static(b"no snapshot")).await.unwrap();
        let _others = snapshots.registry.lock().await;
        let end = tokio::time::timeout(Duration::from_secs(60), receiver.finish(Bytes::new())).await;
        assert!(matches!(end.unwrap(), Err(StateError::InvalidSnapshot { .. })));
    }

    #[tokio::test]
    async fn a_snapshot_in_whose_place_another_came_is_refused() {
        let folder = TempDir::new().unwrap();
        let snapshots = Snapshots::open(folder.path().to_owned()).unwrap();
        let mut receiver = snapshots.receive().await.unwrap();
        receiver.chunk(Encoder::new().finish()).await.unwrap();
        let _next = snapshots.receive().await.unwrap();
        assert!(matches!(receiver.finish(Bytes::new()).await, Err(StateError::InvalidSnapshot { .. })));
    }
}
