//! The tracker against a node that misbehaves, in virtual time.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::fakes::{FakeNode, STALL_TIME, Script, TestClock, cid, pin_on, until};
use super::*;
use crate::ports::TrackerRecord;
use crate::testing::MemState;
use cluster_types::PeerId;

struct Scene {
    me: PeerId,
    store: Arc<MemState>,
    node: Arc<FakeNode>,
    clock: Arc<TestClock>,
    wake: watch::Sender<u64>,
    tracker: Arc<Tracker>,
    tasks: TaskGroup,
}

const SEED: u64 = 7;
const SLOTS: usize = 3;

fn scene(audit: Option<AuditConfig>) -> Scene {
    scene_on(Arc::new(MemState::default()), PeerId::random(), audit)
}

fn scene_on(store: Arc<MemState>, me: PeerId, audit: Option<AuditConfig>) -> Scene {
    let (node, clock) = (Arc::new(FakeNode::default()), Arc::new(TestClock::new()));
    let (wake, tasks) = (watch::Sender::new(0), TaskGroup::new());
    let concurrent_pins = NonZeroUsize::new(SLOTS).unwrap();
    let config = TrackerConfig { concurrent_pins, audit, ..TrackerConfig::default() };
    let (state, tracked) = (store.clone(), store.clone());
    let woken = wake.subscribe();
    let tracker = Tracker::start(
        config,
        HoldRule::allocated_to(me),
        state,
        tracked,
        node.clone(),
        clock.clone(),
        woken,
        SEED,
        &tasks,
    );
    Scene { me, store, node, clock, wake, tracker, tasks }
}

impl Scene {
    /// Changes a pin as apply does.
    fn apply(&self, cid: Cid, after: Option<Pin>) {
        let mut generation = 0;
        self.wake.send_modify(|index| {
            *index += 1;
            generation = *index;
        });
        let (before, tracked) = (self.store.pin_now(&cid), self.store.tracked_now(&cid));
        let now = self.clock.now();
        let rule = PriorityRule::default();
        let hold = HoldRule::allocated_to(self.me);
        let effect = local_effect(&hold, before.as_ref(), after.as_ref(), tracked.as_ref(), generation, now, rule);
        match after {
            Some(pin) => self.store.put(pin),
            None => drop(self.store.remove(&cid)),
        }
        if let Some(record) = effect {
            self.store.track(cid, record);
        }
    }

    fn pin(&self, cid: Cid) {
        self.apply(cid, Some(Pin { timestamp: self.clock.now(), ..pin_on(cid, &[self.me]) }));
    }

    fn status_now(&self, cid: &Cid) -> Option<TrackerStatus> {
        self.store.tracked_now(cid).map(|record| record.status)
    }

    async fn stop(self) {
        assert_eq!(self.tasks.failed(), None);
        assert!(self.tasks.shut_down(Duration::from_secs(5)).await.is_empty());
        assert!(self.node.in_flight.lock().is_empty(), "stopping ends the calls on the node");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_allocated_here_is_pinned_and_unpinned_when_it_ends() {
    let scene = scene(None);
    (0..20).for_each(|n| scene.pin(cid(n)));
    until(|| (0..20).all(|n| scene.status_now(&cid(n)) == Some(TrackerStatus::Pinned))).await;
    assert!((0..20).all(|n| scene.node.holds(&cid(n))));
    assert_eq!(scene.node.most.load(Ordering::SeqCst), SLOTS as u64);
    scene.apply(cid(1), None);
    until(|| !scene.node.holds(&cid(1))).await;
    until(|| scene.status_now(&cid(1)).is_none()).await;
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_user_pinned_by_hand_stays() {
    let scene = scene(None);
    scene.node.held.lock().insert(cid(1), cluster_types::PinDepth::RECURSIVE);
    scene.apply(cid(1), Some(pin_on(cid(1), &[PeerId::random()])));
    scene.apply(cid(1), None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(scene.node.holds(&cid(1)));
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_pin_says_why_and_is_tried_until_it_succeeds() {
    let scene = scene(None);
    scene.node.script(cid(1), Some(Script::Refuse("no such block".to_owned())));
    scene.pin(cid(1));
    until(|| scene.store.tracked_now(&cid(1)).is_some_and(|record| record.attempts == 8)).await;
    let record = scene.store.tracked_now(&cid(1)).unwrap();
    assert_eq!((record.status, record.error.as_str()), (TrackerStatus::PinError, "no such block"));
    assert!(!record.priority, "it stands back after many attempts");
    let pause = record.due.unwrap().since(record.changed);
    assert!(pause > Duration::from_secs(400) && pause < Duration::from_secs(900), "{pause:?}");
    scene.node.script(cid(1), None);
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_pin_is_counted_as_one_thing() {
    let scene = scene(None);
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    scene.node.script(cid(2), Some(Script::Refuse("no".to_owned())));
    scene.pin(cid(2));
    until(|| scene.status_now(&cid(2)) == Some(TrackerStatus::PinError)).await;
    let rest = Workload { queued: 0, pinning: 0, failed: 1, pinned: 1 };
    assert_eq!(scene.tracker.workload(), rest);
    for n in 10..20 {
        scene.node.script(cid(n), Some(Script::Hang));
        scene.pin(cid(n));
    }
    let busy = Workload { queued: 10 - SLOTS as u64, pinning: SLOTS as u64, ..rest };
    until(|| scene.tracker.workload() == busy).await;
    // What failed is tried again, and is under way then and nothing else.
    (10..20).for_each(|n| scene.node.script(cid(n), None));
    until(|| scene.tracker.workload() == Workload { pinned: 11, ..rest }).await;
    scene.node.script(cid(2), Some(Script::Hang));
    until(|| scene.tracker.workload() == Workload { pinning: 1, failed: 0, pinned: 11, queued: 0 }).await;
    scene.node.script(cid(2), None);
    scene.node.script(cid(10), Some(Script::Refuse("no".to_owned())));
    scene.apply(cid(10), None);
    until(|| scene.tracker.workload() == Workload { pinned: 11, ..Workload::default() }).await;
    assert_eq!(scene.status_now(&cid(10)), Some(TrackerStatus::UnpinError), "it is no pin any more");
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_node_is_a_failure_like_others() {
    let scene = scene(None);
    scene.node.script(cid(1), Some(Script::Panic));
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::PinError)).await;
    scene.node.script(cid(1), None);
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_running_pin_ends_when_the_pin_is_removed() {
    let scene = scene(None);
    scene.node.script(cid(1), Some(Script::Hang));
    scene.pin(cid(1));
    until(|| scene.tracker.running().len() == 1).await;
    let running = scene.tracker.status(cid(1)).await.unwrap();
    assert_eq!((running.status, running.attempt_count), (TrackerStatus::Pinning, 1));
    scene.node.script(cid(1), None);
    let began = scene.clock.now();
    scene.apply(cid(1), None);
    until(|| scene.status_now(&cid(1)).is_none()).await;
    assert!(scene.clock.now().since(began) < STALL_TIME, "it is not waited for");
    assert!(!scene.node.holds(&cid(1)) && scene.tracker.running().is_empty());
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_again_while_its_unpin_runs_is_held_in_the_end() {
    let scene = scene(None);
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    scene.node.script(cid(1), Some(Script::Slow));
    scene.apply(cid(1), None);
    until(|| scene.tracker.running().len() == 1 && scene.node.in_flight.lock().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.node.script(cid(1), None);
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    tokio::time::sleep(STALL_TIME * 2).await;
    assert!(scene.node.holds(&cid(1)), "the old unpin must not come after the new pin");
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_stop_the_work() {
    let scene = scene(None);
    for n in 0..20 {
        scene.node.script(cid(n), Some(Script::Refuse("no".to_owned())));
        scene.pin(cid(n));
    }
    until(|| (0..20).all(|n| scene.store.tracked_now(&cid(n)).is_some_and(|record| record.attempts >= 3))).await;
    (1..20).for_each(|n| scene.node.script(cid(n), None));
    scene.clock.set_back(Duration::from_secs(365 * 24 * 3600));
    let began = tokio::time::Instant::now();
    // One goes on failing, so that the queue always has something due soon.
    scene.node.script(cid(30), Some(Script::Refuse("no".to_owned())));
    scene.pin(cid(30));
    until(|| (1..20).all(|n| scene.node.holds(&cid(n)))).await;
    assert!(began.elapsed() < Duration::from_secs(10 * 60));
    let failing = scene.store.tracked_now(&cid(0)).unwrap();
    let longest = retry::longest_pause(TrackerConfig::default().pin_recover_interval);
    assert!(failing.due.unwrap() <= scene.clock.now().saturating_add(longest), "it has a proper next time again");
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unpins_are_not_hidden_behind_a_long_queue_of_hanging_pins() {
    let scene = scene(None);
    scene.pin(cid(1));
    until(|| scene.node.holds(&cid(1))).await;
    for n in 100..400 {
        scene.node.script(cid(n), Some(Script::Hang));
        scene.pin(cid(n));
    }
    until(|| scene.tracker.running().len() == SLOTS).await;
    scene.apply(cid(1), None);
    let began = scene.clock.now();
    until(|| !scene.node.holds(&cid(1))).await;
    assert!(scene.clock.now().since(began) < STALL_TIME, "before any of them has ended");
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn old_pins_are_not_hidden_behind_a_long_queue_of_hanging_unpins() {
    let scene = scene(None);
    (100..400).for_each(|n| scene.pin(cid(n)));
    until(|| (100..400).all(|n| scene.status_now(&cid(n)) == Some(TrackerStatus::Pinned))).await;
    for n in 100..400 {
        scene.node.script(cid(n), Some(Script::Hang));
        scene.apply(cid(n), None);
    }
    until(|| scene.tracker.running().len() == UNPINS).await;
    let began = scene.clock.now();
    scene.apply(cid(1), Some(pin_on(cid(1), &[scene.me])));
    until(|| scene.node.holds(&cid(1))).await;
    assert!(scene.clock.now().since(began) < STALL_TIME, "before any of them has ended");
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_node_burns_no_attempts_and_says_so() {
    let scene = scene(None);
    scene.node.down.store(true, Ordering::SeqCst);
    (0..50).for_each(|n| scene.pin(cid(n)));
    until(|| scene.tracker.waiting_for().is_some()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let calls = scene.node.calls.load(Ordering::SeqCst);
    assert_eq!(calls, SLOTS as u64, "only the first jobs found out");
    assert!((0..50).all(|n| scene.store.tracked_now(&cid(n)).is_some_and(|record| record.attempts == 0)));
    let mut told = BTreeMap::new();
    for n in 0..50 {
        let info = scene.tracker.status(cid(n)).await.unwrap();
        assert!(info.error.contains("cannot reach the IPFS node"), "{info:?}");
        *told.entry(info.status).or_insert(0usize) += 1;
    }
    assert_eq!(told, BTreeMap::from([(TrackerStatus::PinError, SLOTS), (TrackerStatus::PinQueued, 50 - SLOTS)]));
    scene.node.down.store(false, Ordering::SeqCst);
    until(|| (0..50).all(|n| scene.node.holds(&cid(n)))).await;
    assert_eq!(scene.tracker.waiting_for(), None);
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn recovering_tries_again_at_once() {
    let scene = scene(None);
    for n in 0..5 {
        scene.node.script(cid(n), Some(Script::Refuse("no".to_owned())));
        scene.pin(cid(n));
    }
    until(|| (0..5).all(|n| scene.store.tracked_now(&cid(n)).is_some_and(|record| record.attempts == 7))).await;
    (0..5).for_each(|n| scene.node.script(cid(n), None));
    let before = scene.clock.now();
    assert_eq!(scene.tracker.recover(cid(0)).await.unwrap().status, TrackerStatus::PinQueued);
    let first = scene.tracker.recover_page(None, 2).await.unwrap();
    let second = scene.tracker.recover_page(first.next, 3).await.unwrap();
    assert_eq!(first.cids.len() + second.cids.len(), 4);
    until(|| (0..5).all(|n| scene.node.holds(&cid(n)))).await;
    assert!(scene.clock.now().since(before) < Duration::from_secs(5));
    assert_eq!(scene.tracker.recover(cid(0)).await.unwrap().status, TrackerStatus::Pinned);
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_one_pin_the_node_is_asked_for_a_short_time() {
    let scene = scene(None);
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    assert_eq!(scene.tracker.status(cid(1)).await.unwrap().status, TrackerStatus::Pinned);

    scene.node.script(cid(1), Some(Script::Hang));
    let before = scene.clock.now();
    let silent = scene.tracker.status(cid(1)).await.unwrap();
    assert_eq!(silent.status, TrackerStatus::ClusterError);
    assert_eq!(silent.error, "the IPFS node does not answer within 5 s");
    assert!(scene.clock.now().since(before) < Duration::from_secs(6));

    scene.node.script(cid(1), None);
    scene.node.down.store(true, Ordering::SeqCst);
    let down = scene.tracker.status(cid(1)).await.unwrap();
    assert_eq!((down.status, down.error.is_empty()), (TrackerStatus::ClusterError, false));
    scene.node.down.store(false, Ordering::SeqCst);
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn recovering_pins_again_what_was_removed_by_hand() {
    let scene = scene(None);
    scene.pin(cid(1));
    until(|| scene.status_now(&cid(1)) == Some(TrackerStatus::Pinned)).await;
    scene.node.held.lock().clear();
    let lost = scene.tracker.status(cid(1)).await.unwrap();
    assert_eq!(lost.status, TrackerStatus::UnexpectedlyUnpinned);
    assert_eq!(lost.error, "the item should be pinned but it is not");
    scene.tracker.recover(cid(1)).await.unwrap();
    until(|| scene.node.holds(&cid(1))).await;
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_audit_finds_what_the_node_lost() {
    let audit = AuditConfig { page: 2, ..AuditConfig::default() };
    let scene = scene(Some(audit));
    (0..5).for_each(|n| scene.pin(cid(n)));
    until(|| (0..5).all(|n| scene.status_now(&cid(n)) == Some(TrackerStatus::Pinned))).await;
    for _ in 0..2 {
        scene.node.held.lock().clear();
        until(|| (0..5).all(|n| scene.node.holds(&cid(n)))).await;
    }
    scene.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_it_was() {
    let (store, me) = (Arc::new(MemState::default()), PeerId::random());
    for n in 0..3 {
        store.put(pin_on(cid(n), &[me]));
        let due = Some(Timestamp::ZERO);
        store.track(cid(n), Some(TrackerRecord { due, ..fakes::record(4, TrackerStatus::PinQueued, None) }));
    }
    let scene = scene_on(store, me, None);
    until(|| (0..3).all(|n| scene.status_now(&cid(n)) == Some(TrackerStatus::Pinned))).await;
    scene.stop().await;
}

#[derive(Clone, Debug)]
enum Step {
    Pin(u32),
    PinElsewhere(u32),
    Unpin(u32),
    Node(u32, u8),
    NodeDown(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..6).prop_map(Step::Pin),
        1 => (0u32..6).prop_map(Step::PinElsewhere),
        2 => (0u32..6).prop_map(Step::Unpin),
        1 => (0u32..6, 0u8..4).prop_map(|(n, script)| Step::Node(n, script)),
        1 => any::<bool>().prop_map(Step::NodeDown),
        4 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

/// Plays a story, lets the node recover, and checks that it comes to hold exactly what is allocated here.
async fn play(steps: Vec<Step>) {
    let scene = scene(None);
    for step in steps {
        match step {
            Step::Pin(n) => scene.pin(cid(n)),
            Step::PinElsewhere(n) => scene.apply(cid(n), Some(pin_on(cid(n), &[PeerId::random()]))),
            Step::Unpin(n) => scene.apply(cid(n), None),
            Step::Node(n, 0) => scene.node.script(cid(n), Some(Script::Hang)),
            Step::Node(n, 1) => scene.node.script(cid(n), Some(Script::Refuse("no".to_owned()))),
            Step::Node(n, 2) => scene.node.script(cid(n), Some(Script::Slow)),
            Step::Node(n, _) => scene.node.script(cid(n), None),
            Step::NodeDown(down) => scene.node.down.store(down, Ordering::SeqCst),
            Step::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    }
    scene.node.scripts.lock().clear();
    scene.node.down.store(false, Ordering::SeqCst);
    until(|| {
        (0..6).all(|n| {
            let wanted = scene.store.pin_now(&cid(n)).is_some_and(|pin| pin.is_allocated_to(&scene.me));
            let record = scene.status_now(&cid(n));
            wanted == scene.node.holds(&cid(n)) && record == wanted.then_some(TrackerStatus::Pinned)
        })
    })
    .await;
    assert!(!scene.node.doubled.load(Ordering::SeqCst), "never two jobs for one CID");
    scene.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_the_node_comes_to_hold_the_pinset(steps in proptest::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}
