//! Frozen states: checkpoints of the database (hard links), from which others are served.
//!
//! Folders under `snapshots`, each with a number that grows: `…-making` is rubbish after a crash, `…-frozen` is the last
//! frozen state (an older one is rubbish). A folder gets its final name by one rename, when what is in it is on the disk.
//!
//! **Invariant:** one lock, held while a frozen state is made, guards the folders.
//! **Invariant:** a frozen state that was replaced stays for as long as somebody holds it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::consensus::digest::order_key;
use cluster_core::ports::{AnnexRow, OUTCOME_ROWS, ReadFn, SnapshotHandle, StateError};
use cluster_types::ErrorChain;
use futures::stream::BoxStream;
use tokio::sync::{Mutex, RwLock};

use crate::blocking::{Door, Kind};
use crate::codec;
use crate::engine::{Engine, Moment};
use crate::error::Failed;
use crate::keys::{self, Family};
use crate::peers::Dictionary;
use crate::state::{Database, Keeper, Present, View, read_applied};
use crate::stream::{self, Outlet, Stop};

/// Bytes of rows of an annex after which a group is handed over.
const GROUP: usize = 256 << 10;
/// The checkpoint of a frozen state.
const CHECKPOINT_FOLDER: &str = "db";

/// What is replicated beside pins and shards: the kinds of rows of an annex and where they are kept. The index of merged
/// writes by their place follows from them.
pub(crate) const ANNEX: &[(u8, Family)] =
    &[(OUTCOME_ROWS, Family::Outcomes), (2, Family::History), (3, Family::Merged)];

/// The last frozen state.
#[derive(Debug)]
pub(crate) struct Snapshots {
    folder: PathBuf,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: u64,
    current: Option<Arc<Frozen>>,
}

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Making,
    Frozen,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Making, Self::Frozen];

    fn suffix(self) -> &'static str {
        match self {
            Self::Making => "making",
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
    /// Finds the last frozen state and clears away the rest, and also that one when it cannot be read, or shows a state
    /// that was replaced since (`outdated`): it can be made again.
    pub(crate) fn open(folder: PathBuf, outdated: bool) -> Result<Self, StateError> {
        fs::create_dir_all(&folder).failed_to("make the folder of snapshots")?;
        let mut frozen = Vec::new();
        let mut next = 1;
        for entry in fs::read_dir(&folder).failed_to("list snapshots")? {
            let entry = entry.failed_to("list snapshots")?;
            let Some((number, stage)) = entry.file_name().to_str().and_then(read_name) else { continue };
            next = next.max(number.saturating_add(1));
            if stage == Stage::Frozen && !outdated {
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
        let registry = Registry { next, current };
        Ok(Self { folder, registry: Arc::new(Mutex::new(registry)) })
    }

    /// The last frozen state.
    pub(crate) async fn current(&self) -> Option<Arc<dyn SnapshotHandle>> {
        let registry = self.registry.lock().await;
        registry.current.clone().map(|frozen| frozen as Arc<dyn SnapshotHandle>)
    }

    /// The present state once more, for those who read it while it is replaced.
    pub(crate) async fn copy(&self, door: &Door<Database>) -> Result<Database, StateError> {
        let frozen = self.freeze(door).await?;
        let opened = tokio::task::spawn_blocking(move || {
            let engine = Engine::open_checkpoint(&frozen.kept.place.join(CHECKPOINT_FOLDER))?;
            let present = Arc::new(Present::load(&engine)?);
            Ok(Database { engine, present, _keeper: Keeper::Frozen(frozen) })
        });
        opened.await.unwrap_or_else(|error| Err(StateError::Io { operation: "open a snapshot", cause: error.into() }))
    }

    /// Freezes the present state. Updates go on meanwhile: a batch is in the checkpoint whole or not at all.
    pub(crate) async fn make(&self, door: &Door<Database>) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        self.freeze(door).await.map(|frozen| frozen as Arc<dyn SnapshotHandle>)
    }

    async fn freeze(&self, door: &Door<Database>) -> Result<Arc<Frozen>, StateError> {
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
            Ok(frozen)
        })
        .await
    }
}

impl Registry {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
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
    number: u64,
    kept: Arc<Kept>,
    applied: Bytes,
    /// Bounds how many read it at a time. Not the door of the database: it may be read after that is closed.
    readers: Arc<Door<()>>,
}

/// The folder of a frozen state; whoever reads it holds it.
#[derive(Debug)]
struct Kept {
    place: PathBuf,
    doomed: AtomicBool,
    /// Opened at the first look.
    opened: parking_lot::Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug)]
struct Opened {
    engine: Engine,
    dictionary: Dictionary,
}

impl Frozen {
    /// Reads what it shows; its folder is whole.
    fn open(number: u64, place: PathBuf) -> Result<Self, StateError> {
        let engine = Engine::open_checkpoint(&place.join(CHECKPOINT_FOLDER))?;
        let applied = read_applied(&engine.moment())?.unwrap_or_default();
        let kept = Kept { place, doomed: AtomicBool::new(false), opened: parking_lot::Mutex::new(None) };
        Ok(Self { number, kept: Arc::new(kept), applied, readers: Arc::new(Door::new(())) })
    }

    /// Its folder is cleared away with the last reader.
    fn doom(&self) {
        tracing::trace!(number = self.number, "a frozen state was replaced");
        self.kept.doomed.store(true, Ordering::Release);
    }
}

impl Kept {
    fn opened(&self) -> Result<Arc<Opened>, StateError> {
        let mut opened = self.opened.lock();
        if let Some(opened) = &*opened {
            return Ok(Arc::clone(opened));
        }
        let engine = Engine::open_checkpoint(&self.place.join(CHECKPOINT_FOLDER))?;
        let dictionary = Dictionary::load(&engine.moment())?;
        Ok(Arc::clone(opened.insert(Arc::new(Opened { engine, dictionary }))))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            // Hard links: quick. What stays behind is cleared away at the next start.
            if let Err(error) = fs::remove_dir_all(&self.place) {
                tracing::debug!(folder = %self.place.display(), %error, "a superseded snapshot stays behind");
            }
        }
    }
}

#[async_trait]
impl SnapshotHandle for Frozen {
    fn applied(&self) -> Bytes {
        self.applied.clone()
    }

    async fn read(&self, read: ReadFn) -> Result<(), StateError> {
        let kept = Arc::clone(&self.kept);
        let look = move |(): &()| {
            let opened = kept.opened()?;
            read(&View::of(&opened.engine, &opened.dictionary)?)
        };
        self.readers.run(Kind::Ordinary, look).await
    }

    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>> {
        let kept = Arc::clone(&self.kept);
        let nothing_to_wait_for = Arc::new(RwLock::new(()));
        stream::from_job(Arc::clone(&self.readers), nothing_to_wait_for, move |(), _whole, outlet| {
            stream_annex(&kept.opened()?.engine.moment(), outlet)
        })
    }
}

/// The rows of the annex of one instant.
pub(crate) fn stream_annex(moment: &Moment<'_>, outlet: &mut Outlet<Vec<AnnexRow>>) -> Result<(), Stop> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    for (kind, family) in ANNEX {
        let mut rows = moment.rows(*family, &[], None);
        while let Some((key, value)) = rows.next()? {
            let opaque = *family == Family::Outcomes;
            let value = if opaque { codec::decode_opaque("outcome", &value)? } else { value.into() };
            bytes += key.len() + value.len();
            group.push(AnnexRow { kind: *kind, key: key.into(), value });
            if bytes >= GROUP {
                bytes = 0;
                outlet.send(std::mem::take(&mut group))?;
            }
        }
    }
    if group.is_empty() { Ok(()) } else { outlet.send(group) }
}

/// Where a row of an annex belongs, if it is one that this release knows.
pub(crate) fn family_of(row: &AnnexRow) -> Result<Family, StateError> {
    let invalid = |what: String| StateError::InvalidSnapshot { what };
    let known = ANNEX.iter().find(|(kind, _)| *kind == row.kind).map(|(_, family)| *family);
    let family = known.ok_or_else(|| invalid(format!("its annex holds rows of the unknown kind {}", row.kind)))?;
    let sound = if family == Family::Outcomes {
        keys::read_outcome(&row.key).map(drop)
    } else if family == Family::History {
        sound_history(row)
    } else {
        sound_merged(row)
    };
    sound.map_err(|error| invalid(error.to_string()))?;
    Ok(family)
}

fn sound_history(row: &AnnexRow) -> Result<(), StateError> {
    let cid = keys::cid_of(&row.key)?;
    codec::decode_history(&row.value)?;
    if order_key(&cid) == *row.key { Ok(()) } else { Err(codec::damaged("history", "it is not where it belongs")) }
}

fn sound_merged(row: &AnnexRow) -> Result<(), StateError> {
    codec::decode_merged_at(&row.value)?;
    if row.key.len() == keys::ID_BYTES { Ok(()) } else { Err(codec::damaged("merged write", "its name is too short")) }
}
