//! Opening, locking and closing a peer's store.
//!
//! A data folder holds `state` (this database), `snapshots` (frozen states) and, beside an embedded node, `blocks`.
//! Each database has a lock file next to it, locked as long as it is open.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, RwLock};

use crate::blocking::Door;
use crate::codec;
use crate::engine::{Engine, StoreOptions};
use crate::error::StoreError;
use crate::keys::Family;
use crate::raft_log::RaftLog;
use crate::shared_flush::SharedTurn;
use crate::snapshot::Snapshots;
use crate::state::{Database, Keeper, Present, RocksState};
use crate::telemetry::StoreTelemetry;
use crate::{install, search_build};

/// The folder of the state's database.
const STATE_FOLDER: &str = "state";
/// The folder of frozen states.
const SNAPSHOT_FOLDER: &str = "snapshots";

/// A peer's pinset, tracker records and raft log.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    door: Arc<Door<Database>>,
    state: Arc<RocksState>,
    log: RaftLog,
    telemetry: Arc<StoreTelemetry>,
}

impl Store {
    /// Opens or makes the store in `folder`; finishes the install of a snapshot that was cut off. Blocks.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let lock = lock(folder, STATE_FOLDER)?;
        let telemetry = Arc::new(StoreTelemetry::default());
        let place = folder.join(STATE_FOLDER);
        refuse_orphans(&place, &folder.join(SNAPSHOT_FOLDER))?;
        let engine = Engine::open(&place, &Family::STATE, &options, Arc::clone(&telemetry))?;
        let damaged = |error| StoreError::from_state(&place, error);
        let present = Arc::new(Present::load(&engine).map_err(damaged)?);
        let database = Database { engine, present: Arc::clone(&present), _keeper: Keeper::Lock(lock) };
        let snapshots = folder.join(SNAPSHOT_FOLDER);
        let outdated = install::finish(&database).map_err(damaged)?;
        search_build::finish(&database).map_err(damaged)?;
        let snapshots = Arc::new(Snapshots::open(snapshots, outdated).map_err(damaged)?);
        if outdated {
            install::no_longer_outdated(&database).map_err(damaged)?;
        }
        let door = Arc::new(Door::new(database));
        let log = RaftLog::open(Arc::clone(&door)).map_err(damaged)?;
        let state = Arc::new(RocksState {
            door: Arc::clone(&door),
            present,
            writer: Arc::new(Mutex::new(())),
            whole: Arc::new(RwLock::new(())),
            before: parking_lot::RwLock::default(),
            snapshots,
            flushes: SharedTurn::default(),
        });
        Ok(Self { folder: folder.to_owned(), door, state, log, telemetry })
    }

    /// Whether a store was made in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(STATE_FOLDER).join("CURRENT").exists()
    }

    /// Where the store is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where frozen states are.
    pub(crate) fn snapshot_folder(&self) -> PathBuf {
        self.folder.join(SNAPSHOT_FOLDER)
    }

    /// The pinset and the tracker's records.
    pub fn state(&self) -> Arc<RocksState> {
        Arc::clone(&self.state)
    }

    /// The raft log.
    pub fn raft_log(&self) -> RaftLog {
        self.log.clone()
    }

    /// What the store counts.
    pub fn telemetry(&self) -> Arc<StoreTelemetry> {
        Arc::clone(&self.telemetry)
    }

    /// Flushes and closes: waits for what is under way, and answers everything later with
    /// [`StateError::Closed`](cluster_core::ports::StateError::Closed). The folder is free when it returns.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.log.stop().await;
        let closed = self.door.close(|database| {
            database.engine.flush()?;
            database.engine.stop_background_work();
            Ok(())
        });
        closed.await.map_err(|error| StoreError::io("close the store in", &self.folder, error))
    }
}

/// Snapshots without the database they were made of: a new one must not take them for its own.
fn refuse_orphans(place: &Path, snapshots: &Path) -> Result<(), StoreError> {
    let is_left = |folder: &Path| folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if is_left(place) || !is_left(snapshots) {
        return Ok(());
    }
    let cause = codec::damaged("database", "it is gone, and snapshots of it are left").into();
    Err(StoreError::Damaged { folder: place.to_owned(), cause })
}

/// Locks the database `name` in `folder` for this process.
pub(crate) fn lock(folder: &Path, name: &str) -> Result<File, StoreError> {
    fs::create_dir_all(folder).map_err(|error| StoreError::io("make the folder", folder, error))?;
    let path = folder.join(format!("{name}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| StoreError::io("make a lock file in", folder, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock the folder", folder, error)),
    }
}
