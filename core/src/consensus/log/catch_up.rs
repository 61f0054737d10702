//! Takes in a snapshot: the leader offers it, its shards are pulled from whoever has them, and openraft installs it.
//!
//! The leader sends the manifest, and of the annex the sums and then what is asked for, which is small, and then asks again
//! and again whether it is done; log entries to others and heartbeats go on. Everything else is this node's own doing
//! ([`crate::catchup`]).
//!
//! **Invariant:** one snapshot is taken in at a time. The offer of the same one joins it; a newer one takes its place, and
//! goes on with what was staged; an older one is refused.
//! **Invariant:** the annex is staged whole, what is taken over from the own state included, and has the total that was
//! offered; if it has not, all of it is asked for the next time.
//! **Invariant:** what a snapshot is installed from is local and whole: nothing is waited for any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{BoxError, ErrorChain, PeerId};
use futures::TryStreamExt;
use openraft::raft::SnapshotResponse;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::message::RaftReply;
use super::receiver::Raft;
use super::state_machine::AppliedPosition;
use super::types::{LogId, Snapshot, SnapshotContent, SnapshotMeta, TypeConfig, Vote};
use crate::catchup::{
    AnnexAsk, AnnexSums, Progress, Pull, Stage, decode_excerpt, decode_manifest, decode_rows, encode_manifest,
};
use crate::crdt::manifest::Manifest;
use crate::ports::{AnnexRow, StateError, StateStore, Transport};
use crate::rpc::PeerClient;
use crate::task::{OnExit, TaskGroup};
use crate::watch;

/// How long a question whether it is done is held before it is answered with "not yet".
const HOLD: Duration = Duration::from_secs(2);
/// How often progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);
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
    /// The own rows of an annex did not come to what was offered: all of the next one is asked for.
    wants_all: AtomicBool,
    current: Mutex<Option<Current>>,
}

/// A snapshot that is offered.
pub(super) struct Offer {
    pub(super) transfer: u64,
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    /// The manifest is an excerpt for a state of this log index.
    pub(super) base: Option<u64>,
    pub(super) manifest: Bytes,
    pub(super) annex: Bytes,
}

/// An annex that is on its way in.
struct Taking {
    offered: AnnexSums,
    ask: AnnexAsk,
    /// What has come.
    came: AnnexSums,
    /// The number of the next rows.
    next: u64,
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
    /// What is on its way of the annex; `None` when that is here and shards are being pulled.
    taking: Option<Taking>,
    stop: CancellationToken,
    done: watch::Receiver<Option<Done>>,
    finish: Option<Finish>,
}

/// Tells how it ended; dropped without, also by a panic, it tells that nobody goes on.
struct Finish(watch::Sender<Option<Done>>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.send_if_modified(|done| {
            let given_up = done.is_none();
            done.get_or_insert_with(|| Err("the snapshot was given up".to_owned()));
            given_up
        });
    }
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
        Arc::new(Self {
            raft,
            state,
            transport,
            applied,
            tasks,
            progress,
            wants_all: AtomicBool::new(false),
            current: Mutex::new(None),
        })
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.subscribe()
    }

    /// The log index of the state, if it is of any.
    pub(super) async fn base(&self) -> Result<Option<u64>, String> {
        let applied = self.state.applied().await.map_err(|error| error.to_string())?;
        let position = AppliedPosition::decode(applied.as_ref()).map_err(|error| error.to_string())?;
        Ok(position.last.map(|last| last.index()))
    }

    /// The manifest that an excerpt is of, if the state here is of `base` and as it should be.
    async fn complete(&self, base: u64, excerpt: &[u8]) -> Result<Option<Manifest>, String> {
        let excerpt = decode_excerpt(excerpt).map_err(|error| error.to_string())?;
        let (shards, applied) = self.state.shards().await.map_err(|error| error.to_string())?;
        let position = AppliedPosition::decode(applied.as_ref()).map_err(|error| error.to_string())?;
        let stands_there = position.last.is_some_and(|last| last.index() == base);
        Ok(if stands_there { excerpt.complete(&shards) } else { None })
    }

    /// The leader offers a snapshot.
    pub(super) async fn offer(self: &Arc<Self>, from: PeerId, offer: Offer) -> Result<RaftReply, String> {
        let Offer { transfer, vote, meta, base, manifest, annex } = offer;
        let decoded = match base {
            None => decode_manifest(&manifest).map_err(|error| error.to_string())?,
            Some(base) => match self.complete(base, &manifest).await? {
                Some(decoded) => decoded,
                None => return Ok(RaftReply::NeedsManifest),
            },
        };
        let manifest = base.map_or(manifest, |_base| encode_manifest(&decoded));
        let decoded = Arc::new(decoded);
        let offered = AnnexSums::decode(&annex).map_err(|error| error.to_string())?;
        let position = AppliedPosition::decode(Some(decoded.applied())).map_err(|error| error.to_string())?;
        let last = meta.last_log_id;
        if position.last != last {
            return Err("the manifest is of another place in the log than the snapshot".to_owned());
        }
        let mut current = self.current.lock().await;
        if let Some(running) = current.as_mut().filter(|running| running.done.borrow().is_none()) {
            if running.last == last && running.taking.is_none() && running.manifest.root() == decoded.root() {
                (running.from, running.transfer) = (from, transfer);
                *running.vote.lock() = vote;
                return Ok(RaftReply::Joined);
            }
            if running.taking.is_none() && running.last > last {
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
        let taking = self.begin(index, manifest, offered).await.map_err(|error| error.to_string())?;
        let reply = taking.as_ref().map_or(RaftReply::Joined, |taking| RaftReply::Lacks(taking.ask.clone()));
        let (finish, done) = watch::channel(None);
        let current = current.insert(Current {
            from,
            transfer,
            vote: Arc::new(parking_lot::Mutex::new(vote)),
            last,
            meta,
            manifest: decoded,
            taking,
            stop: self.tasks.stop_token().child_token(),
            done,
            finish: Some(Finish(finish)),
        });
        if current.taking.is_none() {
            self.work(current, None);
        }
        Ok(reply)
    }

    /// Begins to stage a snapshot; returns what is to come of its annex. That of the same snapshot, as before a restart,
    /// is kept.
    async fn begin(&self, index: u64, manifest: Bytes, offered: AnnexSums) -> Result<Option<Taking>, StateError> {
        let staged = self.state.staged().await?;
        if staged.annex.1 && staged.manifest.as_ref() == Some(&manifest) {
            return Ok(None);
        }
        self.state.stage(index, manifest).await?;
        let ask = if self.wants_all.load(Ordering::Relaxed) {
            AnnexAsk::All
        } else {
            let (mut own, mut groups) = (AnnexSums::default(), self.state.annex());
            while let Some(rows) = groups.try_next().await? {
                rows.iter().for_each(|row| own.add(row));
            }
            offered.lacking(&own)
        };
        Ok(Some(Taking { offered, ask, came: AnnexSums::default(), next: 0 }))
    }

    /// Pulls the shards of the snapshot, and installs it.
    fn work(self: &Arc<Self>, current: &mut Current, taken: Option<Taking>) {
        let Some(finish) = current.finish.take() else { return };
        let work = Work {
            catching_up: Arc::clone(self),
            from: current.from,
            meta: current.meta.clone(),
            manifest: Arc::clone(&current.manifest),
            taken,
            vote: Arc::clone(&current.vote),
        };
        let stop = current.stop.clone();
        self.tasks.spawn("catch up", OnExit::Continue, async move {
            let done = work.run(&stop).await;
            finish.0.send_replace(Some(done));
            Ok::<(), BoxError>(())
        });
    }

    /// Rows of the annex; none: those were all, and shards are pulled from now on.
    pub(super) async fn annex(
        self: &Arc<Self>,
        from: PeerId,
        transfer: u64,
        sequence: u64,
        rows: &[u8],
    ) -> Result<RaftReply, String> {
        let rows = decode_rows(rows).ok_or("rows of an annex are damaged")?;
        let mut current = self.current.lock().await;
        let current = current
            .as_mut()
            .filter(|current| current.from == from && current.transfer == transfer)
            .ok_or("no such snapshot is on its way in")?;
        let taking = current.taking.as_mut().filter(|taking| taking.next == sequence);
        let taking = taking.ok_or("a part of the snapshot's annex is missing")?;
        if rows.iter().any(|row| !taking.ask.wants(taking.offered.group_of(row))) {
            return Err("rows of an annex came that were not asked for".to_owned());
        }
        if rows.is_empty() {
            let taken = current.taking.take();
            self.work(current, taken);
        } else {
            rows.iter().for_each(|row| taking.came.add(row));
            self.state.stage_annex(rows, false).await.map_err(|error| error.to_string())?;
            taking.next += 1;
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
    /// The leader that offered it.
    from: PeerId,
    meta: SnapshotMeta,
    manifest: Arc<Manifest>,
    /// What came of the annex; `None` when it was whole before.
    taken: Option<Taking>,
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

    /// Adds what this peer has of the annex to what came.
    async fn complete_annex(&self, Taking { offered, ask, came, .. }: &Taking) -> Result<(), StateError> {
        let CatchingUp { state, wants_all, .. } = self.catching_up.as_ref();
        let (mut all, mut groups) = (came.clone(), state.annex());
        while let Some(rows) = groups.try_next().await? {
            let kept: Vec<AnnexRow> = rows.into_iter().filter(|row| offered.keeps(ask, row)).collect();
            kept.iter().for_each(|row| all.add(row));
            if !kept.is_empty() {
                state.stage_annex(kept, false).await?;
            }
        }
        let right = all.total() == offered.total();
        wants_all.store(!right, Ordering::Relaxed);
        if !right {
            let what = "its annex does not come to what was offered; all of it is asked for next".to_owned();
            return Err(StateError::InvalidSnapshot { what });
        }
        state.stage_annex(Vec::new(), true).await
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
        if let Some(taken) = &self.taken {
            self.complete_annex(taken).await.map_err(|error| failed(&error))?;
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
        // Whoever leads has to do with everybody's writes.
        let spare = Some(self.from);
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
            let pull = Pull {
                client: &client,
                index,
                manifest: &self.manifest,
                donors: &donors,
                spare,
                gather: &stage,
                came: &came,
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_ends_for_those_who_wait() {
        let (finish, done) = watch::channel(None);
        let finish = Finish(finish);
        let work = tokio::task::spawn_blocking(move || {
            let _finish = finish;
            panic!("on purpose");
        });
        assert!(work.await.is_err());
        assert!(matches!(*done.borrow(), Some(Err(_))), "or the same snapshot would be joined for ever");
    }
}
