//! A leader that publishes, and a follower on doubles.

use std::collections::BTreeSet;

use cluster_types::{Pin, PinOptions, Timestamp};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::time::Duration;

use super::*;
use crate::broadcast::{self, Batch, BatchEntry, Kind};
use crate::consensus::apply::apply;
use crate::consensus::digest::shard_of;
use crate::consensus::log::LogId;
use crate::consensus::operation::{Entry, Operation, Proposed};
use crate::ports::{Changes, PinChange, Scan, Topic, Transport};
use crate::testing::{MemNet, MemPeer, MemState};
use crate::tracker::fakes::cid;

const LIMIT: Duration = Duration::from_secs(120);

/// The state of a member, with which the follower is compared, and which it may copy.
struct Copying {
    from: Arc<MemState>,
    to: Arc<MemState>,
    open: Mutex<bool>,
    calls: AtomicU64,
}

#[async_trait]
impl CatchUp for Copying {
    async fn catch_up(&self, _at_least: u64, _doubt: bool) -> Result<(), CatchUpError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !*self.open.lock() {
            return Err(CatchUpError::Nobody { reason: "closed in this test".to_owned() });
        }
        // Takes its time, as the real one does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (states, applied) = self.from.shards().await?;
        let wanted: Vec<Pin> = self
            .from
            .scan(Scan::All { after: None })
            .try_filter_map(|row| async move { Ok(row.pin) })
            .try_collect()
            .await?;
        let here: Vec<Pin> = self
            .to
            .scan(Scan::All { after: None })
            .try_filter_map(|row| async move { Ok(row.pin) })
            .try_collect()
            .await?;
        let gone = here.iter().filter(|pin| wanted.iter().all(|other| other.cid != pin.cid));
        let mut pins: Vec<PinChange> =
            gone.map(|pin| PinChange { cid: pin.cid, before: Some(pin.clone()), after: None }).collect();
        pins.extend(wanted.into_iter().map(|pin| PinChange {
            cid: pin.cid,
            before: here.iter().find(|other| other.cid == pin.cid).cloned(),
            after: Some(pin),
        }));
        let shards = (0..).zip(states).collect();
        let changes = Changes { pins, shards, applied, ..Changes::default() };
        self.to.update(Box::new(move |_view| Ok(changes))).await?;
        Ok(())
    }
}

/// A member that leads: it carries out what it is told, and makes batches of it.
pub(super) struct Leader {
    pub(super) state: Arc<MemState>,
    at: Mutex<AppliedPosition>,
}

pub(super) fn pin(number: u32) -> Pin {
    Pin::new(cid(number), PinOptions { name: format!("pin {number}"), ..PinOptions::default() })
}

pub(super) fn put(number: u32) -> Operation {
    Operation::Put(Box::new(pin(number)))
}

impl Leader {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(MemState::new()), at: Mutex::default() }
    }

    pub(super) fn index(&self) -> u64 {
        self.at.lock().index()
    }

    /// Carries out one entry for each group of operations; the batch that tells of it.
    pub(super) async fn commit(&self, groups: Vec<Vec<Operation>>) -> Batch {
        let previous = self.at.lock().last;
        let mut entries = Vec::new();
        for operations in groups {
            let mut next = self.at.lock().clone();
            let index = next.last.map_or(0, |id| id.index() + 1);
            let id = LogId::new(1.into(), index);
            next.last = Some(id);
            let proposed = |(place, operation)| Proposed { id: request_id(index, place), operation };
            let operations = (0..).zip(operations).map(proposed).collect();
            let entry = Entry { time: Timestamp::from_unix_seconds(1_800_000_000), operations };
            let (done, kept) = (Arc::new(Mutex::new(None)), entry.clone());
            let result = Arc::clone(&done);
            let after = next.clone();
            let update = move |view: &dyn crate::ports::StateView| {
                let effect: crate::ports::LocalEffect = Arc::new(|_, _, _| None);
                let mut applied = apply(view, next.log_clock(), [(index, &entry)], &effect)?;
                next.advance(applied.clock);
                applied.changes.applied = Some(next.encode().unwrap());
                *result.lock() = Some((applied.digests[0], next));
                Ok(applied.changes)
            };
            self.state.update(Box::new(update)).await.unwrap();
            let (digest, next) = done.lock().take().unwrap();
            assert_eq!(next.last, after.last);
            *self.at.lock() = next;
            entries.push(BatchEntry { id, entry: kept, digest });
        }
        Batch { previous, entries }
    }

    async fn digest(&self) -> String {
        digest_of(&self.state).await.1
    }
}

/// Where a state is, and its digest.
pub(super) async fn digest_of(state: &MemState) -> (u64, String) {
    let report = report::of(state, Position::default()).await.unwrap();
    (report.applied_index, report.digest)
}

fn request_id(index: u64, place: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&index.to_be_bytes());
    id[8..].copy_from_slice(&place.to_be_bytes());
    id
}

struct Scene {
    leader: Leader,
    trusted: Arc<MemPeer>,
    stranger: Arc<MemPeer>,
    follower: Arc<Follower>,
    catch_up: Arc<Copying>,
    parts: Box<dyn Fn() -> FollowerParts + Send + Sync>,
    tasks: TaskGroup,
    _net: MemNet,
}

async fn scene() -> Scene {
    let net = MemNet::new(7);
    let [trusted, stranger, here] = std::array::from_fn(|_| net.peer(PeerId::random()));
    for speaker in [&trusted, &stranger] {
        speaker.remember(here.local_peer(), here.own_addresses());
    }
    let leader = Leader::new();
    let state = Arc::new(MemState::new());
    let catch_up = Arc::new(Copying {
        from: Arc::clone(&leader.state),
        to: Arc::clone(&state),
        open: Mutex::new(true),
        calls: AtomicU64::new(0),
    });
    let trust = Trust::Only(BTreeSet::from([trusted.local_peer()]));
    let parts = {
        let catch_up = Arc::clone(&catch_up);
        move || FollowerParts {
            state: Arc::clone(&state) as _,
            effect_at: Arc::new(|_| Arc::new(|_, _, _| None)),
            gossip: Arc::clone(&here) as _,
            catch_up: Arc::clone(&catch_up) as _,
            trust: trust.clone(),
        }
    };
    let tasks = TaskGroup::new();
    let follower = Follower::start(parts(), &tasks).await.unwrap();
    Scene { leader, trusted, stranger, follower, catch_up, parts: Box::new(parts), tasks, _net: net }
}

impl Scene {
    async fn tell(&self, from: &MemPeer, batch: &Batch) {
        from.publish(Topic::Log, broadcast::seal(Kind::Batch, &batch.encode())).await.unwrap();
    }

    /// Waits until the follower has what the leader has.
    async fn level(&self) {
        let index = self.leader.index();
        let mut applied = self.follower.applied();
        tokio::time::timeout(LIMIT, applied.wait_for(|applied| *applied >= index)).await.unwrap().unwrap();
        assert_eq!(self.here().await, (index, self.leader.digest().await));
    }

    async fn here(&self) -> (u64, String) {
        let report = self.follower.report().await.unwrap();
        (report.applied_index, report.digest)
    }

    fn calls(&self) -> u64 {
        self.catch_up.calls.load(Ordering::Relaxed)
    }

    async fn stop(self) {
        assert!(self.tasks.shut_down(LIMIT).await.is_empty());
    }
}

/// The follower and its leader, level after the first entries; how often it caught up until then.
async fn level_scene() -> (Scene, u64) {
    let scene = scene().await;
    drop(scene.leader.commit(vec![vec![put(0)], vec![put(1), put(2)]]).await);
    let standing = Batch { previous: scene.leader.at.lock().last, entries: Vec::new() };
    scene.tell(&scene.trusted, &standing).await;
    scene.level().await;
    tokio::time::sleep(LIMIT).await;
    let calls = scene.calls();
    (scene, calls)
}

#[tokio::test(start_paused = true)]
async fn batches_of_a_trusted_peer_are_carried_out_without_asking_anybody() {
    let (scene, calls) = level_scene().await;
    for round in 1..20 {
        let batch = scene.leader.commit(vec![
            vec![put(round * 10), Operation::Remove { cid: pin(1).cid }],
            vec![],
            vec![put(round)],
        ]);
        let batch = batch.await;
        scene.tell(&scene.trusted, &batch).await;
        scene.level().await;
    }
    assert_eq!(scene.calls(), calls);
    let position = scene.follower.position().borrow().clone();
    assert_eq!((position.role, position.leader), (Role::Follower, Some(scene.trusted.local_peer())));
    assert_eq!((position.applied, position.committed), (scene.leader.index(), scene.leader.index()));
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_batch_is_caught_up_and_one_that_comes_late_needs_no_help() {
    let (scene, calls) = level_scene().await;
    let (first, second) =
        (scene.leader.commit(vec![vec![put(10)]]).await, scene.leader.commit(vec![vec![put(11)]]).await);
    scene.tell(&scene.trusted, &second).await;
    scene.tell(&scene.trusted, &first).await;
    scene.level().await;
    assert_eq!(scene.calls(), calls, "they came in another order");

    drop(scene.leader.commit(vec![vec![put(12)]]).await);
    let third = scene.leader.commit(vec![vec![put(13)]]).await;
    scene.tell(&scene.trusted, &third).await;
    scene.level().await;
    assert_eq!(scene.calls(), calls + 1);

    // The last one is lost, and nothing is written any more.
    drop(scene.leader.commit(vec![vec![put(14)]]).await);
    let standing = Batch { previous: scene.leader.at.lock().last, entries: Vec::new() };
    scene.tell(&scene.trusted, &standing).await;
    scene.level().await;
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn forged_and_replayed_batches_of_untrusted_peers_change_nothing() {
    let (scene, calls) = level_scene().await;
    let before = scene.here().await;
    let genuine = scene.leader.commit(vec![vec![put(10)]]).await;
    // Its own entry at the next place, with the right digest: what the leader would say of it.
    let forger = Leader { state: Arc::new(MemState::new()), at: Mutex::new(scene.leader.at.lock().clone()) };
    forger.at.lock().last = genuine.previous;
    let forged = forger.commit(vec![vec![put(66)], vec![Operation::Remove { cid: pin(0).cid }]]).await;
    let ahead = Batch { previous: Some(LogId::new(9.into(), 1_000)), entries: Vec::new() };
    for batch in [&forged, &ahead, &genuine] {
        scene.tell(&scene.stranger, batch).await;
    }
    tokio::time::sleep(LIMIT).await;
    assert_eq!(scene.here().await, before);
    assert_eq!((scene.calls(), scene.follower.counts().untrusted), (calls, 3));

    // Replays of what was carried out change nothing either, whoever brings them.
    scene.tell(&scene.trusted, &genuine).await;
    scene.level().await;
    let removed = scene.leader.commit(vec![vec![Operation::Remove { cid: pin(10).cid }]]).await;
    scene.tell(&scene.trusted, &removed).await;
    scene.level().await;
    let level = scene.here().await;
    for from in [&scene.trusted, &scene.stranger] {
        scene.tell(from, &genuine).await;
    }
    tokio::time::sleep(LIMIT).await;
    assert_eq!((scene.here().await, scene.calls()), (level, calls));
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_difference_is_noticed_before_anything_is_written_and_repaired() {
    let (scene, calls) = level_scene().await;
    // This peer's own copy loses a pin.
    let lost = pin(1);
    let shard = shard_of(&lost.cid);
    let beside = (2..).find(|number| shard_of(&pin(*number).cid) == shard).unwrap();
    let change = PinChange { cid: lost.cid, before: Some(lost.clone()), after: None };
    let update = move |view: &dyn crate::ports::StateView| {
        let mut state = view.shard(shard)?;
        state.sum.remove(&lost);
        Ok(Changes { pins: vec![change], shards: vec![(shard, state)], ..Changes::default() })
    };
    scene.catch_up.to.update(Box::new(update)).await.unwrap();
    let before = scene.here().await;
    let batch = scene.leader.commit(vec![vec![put(beside)]]).await;
    *scene.catch_up.open.lock() = false;
    scene.tell(&scene.trusted, &batch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((scene.here().await, scene.follower.counts().mismatched), (before, 1));
    *scene.catch_up.open.lock() = true;
    scene.level().await;
    assert!(scene.calls() > calls);
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_trusted_peer_cannot_have_meant_costs_a_question_now_and_then() {
    let (scene, calls) = level_scene().await;
    let before = scene.here().await;
    let other = Leader { state: Arc::new(MemState::new()), at: Mutex::new(scene.leader.at.lock().clone()) };
    let mut wrong = other.commit(vec![vec![put(10)]]).await;
    wrong.entries[0].digest = [1; 32];
    for _ in 0..1_000 {
        scene.tell(&scene.trusted, &wrong).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.here().await, before);
    assert!((3..12).contains(&(scene.calls() - calls)), "{}", scene.calls() - calls);
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_where_it_stopped_and_tries_again_until_somebody_answers() {
    let (scene, _) = level_scene().await;
    assert!(scene.tasks.shut_down(LIMIT).await.is_empty());
    drop(scene.leader.commit(vec![vec![put(20)], vec![put(21)]]).await);
    *scene.catch_up.open.lock() = false;
    let tasks = TaskGroup::new();
    let follower = Follower::start((scene.parts)(), &tasks).await.unwrap();
    assert_eq!(*follower.applied().borrow(), 1);
    let before = scene.calls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((10..60).contains(&(scene.calls() - before)), "{}", scene.calls() - before);
    *scene.catch_up.open.lock() = true;
    let mut applied = follower.applied();
    let index = scene.leader.index();
    tokio::time::timeout(LIMIT, applied.wait_for(|applied| *applied == index)).await.unwrap().unwrap();
    assert_eq!(follower.report().await.unwrap().digest, scene.leader.digest().await);
    assert!(tasks.shut_down(LIMIT).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn writes_are_refused_in_the_words_of_the_original() {
    let (scene, _) = level_scene().await;
    let error = scene.follower.submit(Request::Unpin { cid: pin(0).cid }).await.unwrap_err();
    assert_eq!(error.to_string(), READ_ONLY);
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(scene.follower.read_barrier().await.is_err());
    scene.stop().await;
}
