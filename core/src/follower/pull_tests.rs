//! Catching up over a network in memory, from real donors.

use std::collections::BTreeSet;

use cluster_types::{TrackerStatus, WireError};

use super::tests::{Leader, digest_of, pin, put};
use super::*;
use crate::catchup::Donor;
use crate::consensus::digest::shard_of;
use crate::consensus::operation::Operation;
use crate::ports::{Changes, PinChange, StateView, TrackerStore, Transport};
use crate::rpc::{Call, CallServer, PeerService, Reply};
use crate::testing::{MemNet, MemPeer, MemState};
use crate::tracker::fakes::TestClock;
use crate::tracker::{HoldFilter, HoldRule, PriorityRule, local_effect};

/// Answers nothing but what the server answers by itself.
struct Silent;

#[async_trait]
impl PeerService for Silent {
    async fn answer(&self, _from: PeerId, _call: Call) -> Result<Reply, WireError> {
        Err(WireError::new(ErrorClass::Invalid, "nothing is answered here"))
    }

    fn is_member(&self, _peer: &PeerId) -> bool {
        false
    }

    fn trusts(&self, _peer: &PeerId) -> bool {
        true
    }
}

struct Scene {
    leader: Leader,
    member: Arc<MemPeer>,
    here: Arc<MemPeer>,
    state: Arc<MemState>,
    applied: watch::Sender<u64>,
    _net: MemNet,
}

impl Scene {
    fn new() -> Self {
        let net = MemNet::new(3);
        let [member, here] = std::array::from_fn(|_| net.peer(PeerId::random()));
        here.remember(member.local_peer(), member.own_addresses());
        let leader = Leader::new();
        let applied = watch::Sender::new(0);
        let server = CallServer::default();
        server.serve_shards(Arc::new(Donor::new(Arc::clone(&leader.state) as _, applied.subscribe())));
        server.serve_calls(Arc::new(Silent));
        member.serve(Arc::new(server));
        Self { leader, member, here, state: Arc::new(MemState::new()), applied, _net: net }
    }

    async fn commit(&self, operations: Vec<Operation>) {
        drop(self.leader.commit(vec![operations]).await);
        self.applied.send_replace(self.leader.index());
    }

    async fn catch_up_with(&self, trust: Trust, at_least: u64, doubt: bool) -> Result<(), CatchUpError> {
        let effect_at: EffectAt = Arc::new(|_| Arc::new(|_, _, _| None));
        PullFromPeers::new(Arc::clone(&self.state) as _, effect_at, Arc::clone(&self.here) as _, trust)
            .catch_up(at_least, doubt)
            .await
    }

    fn trust(&self) -> Trust {
        Trust::Only(BTreeSet::from([self.member.local_peer()]))
    }

    async fn level(&self) {
        assert_eq!(digest_of(&self.state).await, digest_of(&self.leader.state).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_follower_gets_everything_and_later_what_has_changed() {
    let scene = Scene::new();
    scene.commit((0..500).map(put).collect()).await;
    scene.catch_up_with(scene.trust(), 0, false).await.unwrap();
    scene.level().await;
    scene.commit(vec![put(1_000), Operation::Remove { cid: pin(3).cid }]).await;
    scene.catch_up_with(scene.trust(), scene.leader.index() - 1, false).await.unwrap();
    scene.level().await;
    // Nothing is to be done, and nothing goes wrong.
    scene.catch_up_with(Trust::Everyone, scene.leader.index(), false).await.unwrap();
    scene.level().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_not_what_it_should_be_is_corrected_at_the_same_place() {
    let scene = Scene::new();
    scene.commit((0..200).map(put).collect()).await;
    scene.catch_up_with(scene.trust(), 0, false).await.unwrap();
    for number in 0..50 {
        let lost = pin(number);
        let shard = shard_of(&lost.cid);
        let change = PinChange { cid: lost.cid, before: Some(lost.clone()), after: None };
        let update = move |view: &dyn StateView| {
            let mut state = view.shard(shard)?;
            state.sum.remove(&lost);
            Ok(Changes { pins: vec![change], shards: vec![(shard, state)], ..Changes::default() })
        };
        scene.state.update(Box::new(update)).await.unwrap();
    }
    assert_ne!(digest_of(&scene.state).await, digest_of(&scene.leader.state).await);
    scene.catch_up_with(scene.trust(), scene.leader.index(), true).await.unwrap();
    scene.level().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_believed_who_is_not_trusted_or_is_behind() {
    let scene = Scene::new();
    scene.commit(vec![put(1)]).await;
    let stranger = Trust::Only(BTreeSet::from([PeerId::random()]));
    let error = scene.catch_up_with(stranger, 0, false).await.unwrap_err();
    assert!(error.to_string().contains("none is connected"), "{error}");
    let error = scene.catch_up_with(scene.trust(), 7, false).await.unwrap_err();
    assert!(error.to_string().contains("up to 0"), "{error}");
    assert_eq!(scene.state.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_filter_pins_and_unpins_what_is_different() {
    let scene = Scene::new();
    scene.commit((0..30).map(put).collect()).await;
    scene.catch_up_with(scene.trust(), 0, false).await.unwrap();
    let clock = Arc::new(TestClock::new());
    let mut statuses = Vec::new();
    for pattern in ["pin 1?", "pin 2?"] {
        let filter = HoldFilter { names: vec![pattern.to_owned()], ..HoldFilter::default() };
        let hold = HoldRule::filtered(scene.here.local_peer(), filter);
        let clock = Arc::clone(&clock);
        let effect_at: EffectAt = Arc::new(move |generation| {
            let (hold, clock) = (hold.clone(), Arc::clone(&clock));
            Arc::new(move |before, after, tracked| {
                use crate::ports::Clock;
                local_effect(&hold, before, after, tracked, generation, clock.now(), PriorityRule::default())
            })
        });
        assert_eq!(hold_again(scene.state.as_ref(), &effect_at).await.unwrap(), 30);
        let mut found = Vec::new();
        for number in 0..30 {
            found.push(scene.state.tracked(pin(number).cid).await.unwrap().map(|record| record.status));
        }
        statuses.push(found);
    }
    use TrackerStatus::{PinQueued, UnpinQueued};
    let wanted = |numbers: std::ops::Range<usize>, status, found: &[Option<TrackerStatus>]| {
        assert!(found[numbers].iter().all(|found| *found == status), "{found:?}");
    };
    wanted(0..10, None, &statuses[0]);
    wanted(10..20, Some(PinQueued), &statuses[0]);
    wanted(20..30, None, &statuses[0]);
    wanted(0..10, None, &statuses[1]);
    wanted(10..20, Some(UnpinQueued), &statuses[1]);
    wanted(20..30, Some(PinQueued), &statuses[1]);
}
