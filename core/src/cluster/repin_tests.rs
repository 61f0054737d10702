//! Failing over, with a store and a consensus in memory.

use async_trait::async_trait;
use cluster_types::{Commit, Multiaddr, StateReport, WireError};
use parking_lot::Mutex;

use super::*;
use crate::consensus::{ConsensusError, Member, Receipt};
use crate::testing::MemState;
use crate::tracker::fakes::{cid, pin_on, until};

/// Carries out requests on a store at once.
pub(crate) struct FakeConsensus {
    store: Arc<MemState>,
    /// Who gets what others lose; without one, re-allocations are refused.
    spare: Mutex<Option<PeerId>>,
    position: watch::Sender<Position>,
    /// Since when no quorum answers.
    alone_since: Mutex<Option<Instant>>,
    requests: Mutex<Vec<Request>>,
}

impl FakeConsensus {
    pub(crate) fn leading(store: Arc<MemState>, spare: Option<PeerId>) -> Arc<Self> {
        let position = watch::Sender::new(Position { role: Role::Leader, ..Position::default() });
        let (spare, alone_since, requests) = (Mutex::new(spare), Mutex::new(None), Mutex::new(Vec::new()));
        Arc::new(Self { store, spare, position, alone_since, requests })
    }

    pub(crate) fn set_role(&self, role: Role) {
        self.position.send_modify(|position| position.role = role);
    }

    /// From now on no quorum answers.
    pub(crate) fn cut_off(&self) {
        *self.alone_since.lock() = Some(Instant::now());
    }

    /// A quorum answers again.
    fn heal(&self) {
        *self.alone_since.lock() = None;
    }

    pub(crate) fn join(&self, peer: PeerId) {
        let member = Member { peer, node_id: 1, voter: true, addresses: Vec::new() };
        self.position.send_modify(|position| position.members.push(member));
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    fn decide(&self, request: &Request) -> Outcome {
        match request {
            Request::Reallocate { cid, exclude } => {
                let mut pin = self.store.pin_now(cid).unwrap();
                let Some(spare) = *self.spare.lock() else {
                    return Outcome::Refused(WireError::new(ErrorClass::Unavailable, "not enough peers"));
                };
                pin.allocations.retain(|peer| !exclude.contains(peer));
                pin.allocations.push(spare);
                self.store.put(pin.clone());
                Outcome::Pinned(Box::new(pin))
            }
            Request::Expire { cid } => {
                self.store.remove(cid).map_or(Outcome::Unchanged, |pin| Outcome::Unpinned(Box::new(pin)))
            }
            Request::Pin(_)
            | Request::Unpin { .. }
            | Request::UnpinPart { .. }
            | Request::Withdraw { .. }
            | Request::Merge(_) => Outcome::Unchanged,
        }
    }
}

#[async_trait]
impl Consensus for FakeConsensus {
    async fn submit(&self, request: Request) -> Result<Receipt, ConsensusError> {
        let outcome = self.decide(&request);
        self.requests.lock().push(request);
        Ok(Receipt { commit: Commit::Log { term: 1, index: 1 }, outcome })
    }
    async fn read_barrier(&self) -> Result<(), ConsensusError> {
        Ok(())
    }
    fn position(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }
    fn alone_for(&self) -> Option<Duration> {
        self.alone_since.lock().map(|since| since.elapsed())
    }
    async fn report(&self) -> Result<StateReport, ConsensusError> {
        Err(ConsensusError::Overloaded)
    }
    async fn add_peer(&self, _peer: PeerId, _addresses: Vec<Multiaddr>) -> Result<(), ConsensusError> {
        Ok(())
    }
    async fn remove_peer(&self, _peer: PeerId) -> Result<(), ConsensusError> {
        Ok(())
    }
    async fn hand_over(&self) {}
}

fn with_min(n: u32, min: i32, peers: &[PeerId]) -> Pin {
    let mut pin = pin_on(cid(n), peers);
    pin.options.replication_factor_min = min;
    pin.options.replication_factor_max = 3;
    pin
}

struct Scene {
    store: Arc<MemState>,
    consensus: Arc<FakeConsensus>,
    suspects: watch::Sender<BTreeSet<PeerId>>,
    tasks: TaskGroup,
}

const GRACE: Duration = Duration::from_secs(60);

fn scene(pins: Vec<Pin>, spare: Option<PeerId>, config: RepinConfig) -> Scene {
    scene_of(PeerId::random(), pins, spare, config)
}

fn scene_of(peer: PeerId, pins: Vec<Pin>, spare: Option<PeerId>, config: RepinConfig) -> Scene {
    let store = Arc::new(MemState::default());
    for pin in pins {
        store.put(pin);
    }
    let consensus = FakeConsensus::leading(Arc::clone(&store), spare);
    let (suspects, tasks) = (watch::Sender::new(BTreeSet::new()), TaskGroup::new());
    let outlook = Outlook { peer, suspects: suspects.subscribe(), grace: config.grace };
    start(config, store.clone(), consensus.clone(), outlook, &tasks);
    Scene { store, consensus, suspects, tasks }
}

fn config() -> RepinConfig {
    RepinConfig { grace: GRACE, page: 2, ..RepinConfig::default() }
}

fn cids(requests: &[Request]) -> Vec<Cid> {
    let cid = |request: &Request| {
        let Request::Reallocate { cid, .. } = request else { panic!("{request:?}") };
        *cid
    };
    requests.iter().map(cid).collect()
}

#[test]
fn the_fewest_live_copies_come_first() {
    let [a, b, c] = [(); 3].map(|()| PeerId::random());
    let dead = BTreeSet::from([a, b]);
    let pins = [with_min(1, 2, &[a, c]), with_min(2, 1, &[a, b]), with_min(3, 1, &[a, c]), pin_on(cid(4), &[])];
    assert_eq!(endangered(&pins, &dead), [cid(2), cid(1)]);
}

#[tokio::test(start_paused = true)]
async fn pins_below_their_minimum_move_after_the_grace_period_and_others_stay() {
    let [dead, live, spare] = [(); 3].map(|()| PeerId::random());
    let mut pins: Vec<Pin> = (0..5).map(|n| with_min(n, 2, &[dead, live])).collect();
    pins.push(with_min(9, 1, &[dead, live]));
    let scene = scene(pins, Some(spare), config());
    scene.suspects.send_replace(BTreeSet::from([dead]));
    tokio::time::sleep(GRACE / 2).await;
    assert_eq!(scene.consensus.requests(), [], "a short silence moves nothing");
    until(|| scene.consensus.requests().len() == 5).await;
    tokio::time::sleep(GRACE * 10).await;
    let mut moved = cids(&scene.consensus.requests());
    moved.sort();
    let mut wanted: Vec<Cid> = (0..5).map(cid).collect();
    wanted.sort();
    assert_eq!(moved, wanted, "each once, and none with enough copies");
    assert_eq!(scene.store.pin_now(&cid(0)).unwrap().allocations, [live, spare]);
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_the_peer_returns() {
    let [dead, spare] = [(); 2].map(|()| PeerId::random());
    let pins: Vec<Pin> = (0..200).map(|n| with_min(n, 1, &[dead])).collect();
    let slow = RepinConfig { per_second: NonZeroU32::MIN, page: 1000, ..config() };
    let scene = scene(pins, Some(spare), slow);
    scene.suspects.send_replace(BTreeSet::from([dead]));
    until(|| !scene.consensus.requests().is_empty()).await;
    scene.suspects.send_replace(BTreeSet::new());
    let moved = scene.consensus.requests().len();
    tokio::time::sleep(GRACE * 100).await;
    assert_eq!(scene.consensus.requests().len(), moved);
    assert!(moved < 200);
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_acts_and_a_new_one_begins_at_once() {
    let [dead, spare] = [(); 2].map(|()| PeerId::random());
    let scene = scene(vec![with_min(1, 1, &[dead])], Some(spare), config());
    scene.consensus.set_role(Role::Voter);
    scene.suspects.send_replace(BTreeSet::from([dead]));
    tokio::time::sleep(GRACE * 10).await;
    assert_eq!(scene.consensus.requests(), []);
    scene.consensus.set_role(Role::Leader);
    until(|| scene.consensus.requests().len() == 1).await;
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_again_later() {
    let [dead, spare] = [(); 2].map(|()| PeerId::random());
    let scene = scene(vec![with_min(1, 1, &[dead])], None, config());
    scene.suspects.send_replace(BTreeSet::from([dead]));
    until(|| scene.consensus.requests().len() == 2).await;
    *scene.consensus.spare.lock() = Some(spare);
    until(|| scene.store.pin_now(&cid(1)).unwrap().allocations == [spare]).await;
    let asked = scene.consensus.requests().len();
    tokio::time::sleep(GRACE * 10).await;
    assert_eq!(scene.consensus.requests().len(), asked, "done is done");
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn hopeless_repair_is_tried_ever_less_often_until_the_circumstances_change() {
    let [dead, late] = [(); 2].map(|()| PeerId::random());
    let scene = scene(vec![with_min(1, 1, &[dead])], None, config());
    scene.suspects.send_replace(BTreeSet::from([dead]));
    let day = Duration::from_secs(24 * 3600);
    tokio::time::sleep(day).await;
    let asked = scene.consensus.requests().len();
    assert!((10..100).contains(&asked), "{asked} attempts in a day");
    for change in ["a member joined", "another is suspect"] {
        let before = scene.consensus.requests().len();
        let began = Instant::now();
        match change {
            "a member joined" => scene.consensus.join(late),
            _ => drop(scene.suspects.send_replace(BTreeSet::from([dead, late]))),
        }
        until(|| scene.consensus.requests().len() == before + 2).await;
        assert!(began.elapsed() <= GRACE * 3, "{change}: at once, and soon again");
    }
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn disabled_means_never() {
    let [dead, spare] = [(); 2].map(|()| PeerId::random());
    let off = RepinConfig { enabled: false, ..config() };
    let scene = scene(vec![with_min(1, 1, &[dead])], Some(spare), off);
    scene.suspects.send_replace(BTreeSet::from([dead]));
    tokio::time::sleep(GRACE * 10).await;
    assert_eq!(scene.consensus.requests(), []);
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}

/// What a peer re-allocates when it and `other` are cut off from the holder of forty pins.
async fn share_of(peer: PeerId, other: PeerId, dead: PeerId) -> BTreeSet<Cid> {
    let pins = (0..40).map(|n| with_min(n, 1, &[dead])).collect();
    let scene = scene_of(peer, pins, Some(peer), config());
    scene.consensus.set_role(Role::Voter);
    for member in [peer, other, dead] {
        scene.consensus.join(member);
    }
    scene.suspects.send_replace(BTreeSet::from([dead]));
    tokio::time::sleep(GRACE * 10).await;
    assert_eq!(scene.consensus.requests(), [], "that is the leader's work while there may be one");
    scene.consensus.cut_off();
    tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
    assert_eq!(scene.consensus.requests(), [], "not before the quorum was missing for as long");
    tokio::time::sleep(GRACE * 10).await;
    let moved = cids(&scene.consensus.requests());
    let share: BTreeSet<Cid> = moved.iter().copied().collect();
    assert_eq!(moved.len(), share.len(), "each once");
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
    share
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_every_pin_is_repaired_by_its_closest_peer() {
    let [one, other, dead] = [(); 3].map(|()| PeerId::random());
    let (mine, theirs) = (share_of(one, other, dead).await, share_of(other, one, dead).await);
    assert!(mine.is_disjoint(&theirs), "nobody does what another does");
    assert_eq!(mine.len() + theirs.len(), 40, "and nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_alone_takes_its_time_and_stops_when_a_quorum_is_back() {
    let [one, dead] = [(); 2].map(|()| PeerId::random());
    let pins = (0..200).map(|n| with_min(n, 1, &[dead])).collect();
    let slow = RepinConfig { per_second: NonZeroU32::MIN.saturating_add(9), page: 1000, ..config() };
    let scene = scene_of(one, pins, Some(one), slow);
    scene.consensus.set_role(Role::Voter);
    for member in [one, dead] {
        scene.consensus.join(member);
    }
    scene.suspects.send_replace(BTreeSet::from([dead]));
    scene.consensus.cut_off();
    until(|| scene.consensus.requests().len() == AT_A_TIME).await;
    let began = Instant::now();
    until(|| scene.consensus.requests().len() == AT_A_TIME * 2).await;
    assert!(began.elapsed() > Duration::from_secs(30), "a tenth of the rate");
    scene.consensus.heal();
    tokio::time::sleep(GRACE * 10).await;
    assert_eq!(scene.consensus.requests().len(), AT_A_TIME * 2);
    assert!(scene.tasks.shut_down(GRACE).await.is_empty());
}
