//! Takes in a snapshot: the leader offers it, its shards are pulled from whoever has them, and openraft installs it.
//!
//! The leader sends the manifest and the annex, which are small, and then asks again and again whether it is done; log
//! entries to others and heartbeats go on. Everything else is this node's own doing ([`crate::catchup`]).
//!
//! **Invariant:** one snapshot is taken in at a time. The offer of the same one joins it; a newer one takes its place, and
//! goes on with what was staged; an older one is refused.
//! **Invariant:** what a snapshot is installed from is local and whole: nothing is waited for any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{BoxError, ErrorChain, PeerId};
use openraft::raft::SnapshotResponse;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::message::RaftReply;
use super::receiver::Raft;
use super::state_machine::AppliedPosition;
use super::types::{LogId, Snapshot, SnapshotContent, SnapshotMeta, TypeConfig, Vote};
use crate::catchup::{Progress, Pull, Stage, decode_manifest};
use crate::crdt::manifest::Manifest;
use crate::crdt::packed::{deflate, inflate};
use crate::ports::{AnnexRow, StateStore, Transport};
use crate::rpc::PeerClient;
use crate::task::{OnExit, TaskGroup};
use crate::watch;

/// How long a question whether it is done is held before it is answered with "not yet".
const HOLD: Duration = Duration::from_secs(2);
/// How often progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a group of the annex at most.
const MAX_GROUP: usize = 4 * 1024 * 1024;
/// Times that shards are looked for again which changed while others were pulled.
const ROUNDS: usize = 8;

type Done = Result<SnapshotResponse<TypeConfig>, String>;

/// Takes in snapshots.
pub(super) struct CatchingUp {
    raft: Raft,
    state: Arc<dyn StateStore>,
    transport: Arc<dyn Transport>,
    applied: watch::Receiver<u64>,
    tasks: TaskGroup,
    progress: watch::Sender<Option<Progress>>,
    current: Mutex<Option<Current>>,
}

impl fmt::Debug for CatchingUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchingUp").finish_non_exhaustive()
    }
}

/// The snapshot that is being taken in.
struct Current {
    from: PeerId,
    transfer: u64,
    vote: Arc<parking_lot::Mutex<Vote>>,
    last: Option<LogId>,
    meta: SnapshotMeta,
    manifest: Arc<Manifest>,
    /// The next group of the annex; `None` when all of it is here and shards are being pulled.
    next_group: Option<u64>,
    stop: CancellationToken,
    done: watch::Receiver<Option<Done>>,
    finish: Option<watch::Sender<Option<Done>>>,
}

impl CatchingUp {
    pub(super) fn new(
        raft: Raft,
        state: Arc<dyn StateStore>,
        transport: Arc<dyn Transport>,
        applied: watch::Receiver<u64>,
        tasks: TaskGroup,
    ) -> Arc<Self> {
        let progress = watch::Sender::new(None);
        Arc::new(Self { raft, state, transport, applied, tasks, progress, current: Mutex::new(None) })
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.subscribe()
    }

    /// The leader offers a snapshot.
    pub(super) async fn offer(
        &self,
        from: PeerId,
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
        manifest: &[u8],
    ) -> Result<RaftReply, String> {
        let decoded = Arc::new(decode_manifest(manifest).map_err(|error| error.to_string())?);
        let position = AppliedPosition::decode(Some(decoded.applied())).map_err(|error| error.to_string())?;
        let last = meta.last_log_id;
        if position.last != last {
            return Err("the manifest is of another place in the log than the snapshot".to_owned());
        }
        let mut current = self.current.lock().await;
        if let Some(running) = current.as_mut().filter(|running| running.done.borrow().is_none()) {
            if running.last == last && running.next_group.is_none() && running.manifest.root() == decoded.root() {
                (running.from, running.transfer) = (from, transfer);
                *running.vote.lock() = vote;
                return Ok(RaftReply::Joined);
            }
            if running.next_group.is_none() && running.last > last {
                return Err("a newer snapshot is on its way in".to_owned());
            }
            running.stop.cancel();
            running.finish = None;
            // It ends soon, but for an install that has begun; then this is not needed any more.
            let mut done = running.done.clone();
            if timeout(HOLD, done.wait_for(Option::is_some)).await.is_err() {
                return Err("another snapshot is being installed".to_owned());
            }
        }
        let index = position.index();
        self.state.stage(index, Bytes::copy_from_slice(manifest)).await.map_err(|error| error.to_string())?;
        let (finish, done) = watch::channel(None);
        *current = Some(Current {
            from,
            transfer,
            vote: Arc::new(parking_lot::Mutex::new(vote)),
            last,
            meta,
            manifest: decoded,
            next_group: Some(0),
            stop: self.tasks.stop_token().child_token(),
            done,
            finish: Some(finish),
        });
        Ok(RaftReply::Continue)
    }

    /// Rows of the annex; none: that was all, and shards are pulled from now on.
    pub(super) async fn annex(
        self: &Arc<Self>,
        from: PeerId,
        transfer: u64,
        sequence: u64,
        rows: &[u8],
    ) -> Result<RaftReply, String> {
        let rows = decode_annex(rows)?;
        let mut current = self.current.lock().await;
        let expected = current
            .as_mut()
            .filter(|current| current.from == from && current.transfer == transfer)
            .filter(|current| current.next_group == Some(sequence))
            .ok_or("no such snapshot is on its way in, or a part of its annex is missing")?;
        let last = rows.is_empty();
        self.state.stage_annex(rows, last).await.map_err(|error| error.to_string())?;
        expected.next_group = (!last).then_some(sequence + 1);
        if let Some(finish) = expected.finish.take_if(|_| last) {
            let work = Work {
                catching_up: Arc::clone(self),
                meta: expected.meta.clone(),
                manifest: Arc::clone(&expected.manifest),
                vote: Arc::clone(&expected.vote),
            };
            let stop = expected.stop.clone();
            self.tasks.spawn("catch up", OnExit::Continue, async move {
                let done = work.run(&stop).await;
                finish.send_replace(Some(done));
                Ok::<(), BoxError>(())
            });
        }
        Ok(RaftReply::Continue)
    }

    /// Whether it is installed.
    pub(super) async fn wait(&self, from: PeerId, transfer: u64) -> Result<RaftReply, String> {
        let mut done = {
            let current = self.current.lock().await;
            let current = current.as_ref().filter(|current| current.from == from && current.transfer == transfer);
            current.ok_or("no such snapshot is on its way in")?.done.clone()
        };
        let ended = match timeout(HOLD, done.wait_for(Option::is_some)).await {
            Ok(Ok(_ended)) => done.borrow().clone(),
            Ok(Err(_gone)) => return Err("the snapshot was given up".to_owned()),
            Err(_elapsed) => None,
        };
        match ended {
            Some(Ok(response)) => Ok(RaftReply::Snapshot(response)),
            Some(Err(reason)) => Err(reason),
            None => Ok(RaftReply::Continue),
        }
    }
}

/// One snapshot, from its offer to its end.
struct Work {
    catching_up: Arc<CatchingUp>,
    meta: SnapshotMeta,
    manifest: Arc<Manifest>,
    vote: Arc<parking_lot::Mutex<Vote>>,
}

impl Work {
    async fn run(&self, stop: &CancellationToken) -> Done {
        let CatchingUp { raft, progress, .. } = self.catching_up.as_ref();
        let gathered = tokio::select! {
            biased;
            () = stop.cancelled() => Err("a newer snapshot came, or this peer is stopping".to_owned()),
            gathered = self.gather() => gathered,
        };
        if let Err(reason) = gathered {
            progress.send_replace(None);
            tracing::info!(reason, "catching up stopped; what is here is kept");
            return Err(reason);
        }
        progress.send_modify(|progress| {
            if let Some(progress) = progress {
                progress.installing = true;
            }
        });
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: SnapshotContent::Staged };
        let vote = *self.vote.lock();
        let installed = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string());
        let last = progress.send_replace(None);
        match (&installed, last) {
            (Ok(_), Some(last)) => {
                let seconds = last.began.elapsed().as_secs_f64();
                let (index, shards, bytes) = (last.index, last.shards_total, last.bytes);
                tracing::info!(index, shards, bytes, seconds, "caught up");
            }
            (Ok(_), None) => {}
            (Err(reason), _) => tracing::warn!(reason, "what was gathered could not be installed"),
        }
        installed
    }

    /// Has all shards staged.
    async fn gather(&self) -> Result<(), String> {
        let CatchingUp { state, transport, applied, progress, .. } = self.catching_up.as_ref();
        let failed = |error: &dyn std::error::Error| ErrorChain(error).to_string();
        let own = AppliedPosition::decode(state.applied().await.map_err(|error| failed(&error))?.as_ref());
        let own = own.map_err(|error| failed(&error))?;
        let target = AppliedPosition::decode(Some(self.manifest.applied())).map_err(|error| failed(&error))?;
        let (index, own_index) = (target.index(), *applied.borrow());
        if own_index >= index {
            // openraft takes no notice of a snapshot that it does not need.
            return Ok(());
        }
        let local = transport.local_peer();
        let members: Vec<_> = target
            .membership
            .membership()
            .nodes()
            .map(|(_, node)| node.clone())
            .filter(|node| node.peer != local)
            .collect();
        for member in &members {
            transport.remember(member.peer, member.addresses.clone());
        }
        let donors = || members.iter().map(|member| member.peer).collect();
        let client = PeerClient::new(Arc::clone(transport));
        let lag = u64::try_from(target.clock.saturating_sub(own.clock)).unwrap_or(0);
        for _round in 0..ROUNDS {
            let own_index = *applied.borrow();
            let stage = Stage::new(state.as_ref(), &self.manifest, index, own_index);
            let (missing, differing) = stage.missing().await.map_err(|error| failed(&error))?;
            let begun = Progress {
                index,
                shards_done: differing - missing.len(),
                shards_total: differing,
                bytes: 0,
                lag_entries: index.saturating_sub(own_index),
                lag: Duration::from_nanos(lag),
                began: Instant::now(),
                installing: false,
            };
            progress.send_modify(|progress| {
                let before = progress.unwrap_or(begun);
                *progress = Some(Progress { bytes: before.bytes, began: before.began, ..begun });
            });
            if missing.is_empty() {
                return stage.verify().await.map_err(|error| failed(&error));
            }
            let shown = parking_lot::Mutex::new(Instant::now());
            tracing::info!(index, shards = missing.len(), of = differing, "catching up by shards");
            let came = |shards, bytes| self.note(&shown, shards, bytes);
            let pull =
                Pull { client: &client, index, manifest: &self.manifest, donors: &donors, gather: &stage, came: &came };
            pull.run(&missing).await.map_err(|error| failed(&error))?;
        }
        Err("shards go on changing here while they are gathered".to_owned())
    }

    /// Some shards came.
    fn note(&self, shown: &parking_lot::Mutex<Instant>, shards: usize, bytes: u64) {
        let CatchingUp { progress, .. } = self.catching_up.as_ref();
        progress.send_modify(|progress| {
            if let Some(progress) = progress {
                progress.shards_done += shards;
                progress.bytes += bytes;
            }
        });
        let mut shown = shown.lock();
        if shown.elapsed() < LOG_EVERY {
            return;
        }
        *shown = Instant::now();
        let Some(now) = *progress.borrow() else { return };
        let (done, total, bytes) = (now.shards_done, now.shards_total, now.bytes);
        let eta = now.remaining(Instant::now()).map(|left| left.as_secs());
        tracing::info!(
            shards = done,
            of = total,
            bytes,
            eta_seconds = eta,
            lag_entries = now.lag_entries,
            "catching up"
        );
    }
}

/// Rows of an annex as they travel; nothing for none.
pub(super) fn encode_annex(rows: &[AnnexRow]) -> Bytes {
    if rows.is_empty() {
        return Bytes::new();
    }
    let rows: Vec<WireRow> = rows.iter().map(|row| WireRow(row.kind, row.key.clone(), row.value.clone())).collect();
    let plain = rmp_serde::to_vec(&rows).expect("numbers and bytes always encode");
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    let check = blake3::hash(&plain);
    [&length.to_be_bytes()[..], check.as_bytes(), &deflate(&plain)].concat().into()
}

/// Reads rows of an annex.
fn decode_annex(bytes: &[u8]) -> Result<Vec<AnnexRow>, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let fail = || "rows of an annex are damaged".to_owned();
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(fail)?;
    let (check, packed) = rest.split_first_chunk::<32>().ok_or_else(fail)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let plain = (length <= MAX_GROUP).then(|| inflate(packed, length)).flatten().ok_or_else(fail)?;
    if blake3::hash(&plain).as_bytes() != check {
        return Err(fail());
    }
    let rows: Vec<WireRow> = rmp_serde::from_slice(&plain).map_err(|error| error.to_string())?;
    if rows.is_empty() {
        return Err(fail());
    }
    Ok(rows.into_iter().map(|WireRow(kind, key, value)| AnnexRow { kind, key, value }).collect())
}

/// A row as it travels.
#[derive(Serialize, Deserialize)]
struct WireRow(u8, Bytes, Bytes);
