//! Messages that fit and follow each other, from a leader and nobody else.

use cluster_types::{Cid, PeerId, Timestamp};
use tokio::sync::broadcast;

use super::super::{Batch, open};
use super::*;
use crate::consensus::operation::{Operation, Proposed};
use crate::ports::{GossipMessage, Transport};
use crate::testing::{MemNet, MemPeer};

fn at(index: u64) -> LogId {
    LogId::new(1.into(), index)
}

fn entry(operations: usize) -> Entry {
    let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
    let proposed = Proposed { id: [1; 16], operation: Operation::Remove { cid } };
    Entry { time: Timestamp::ZERO, operations: vec![proposed; operations] }
}

fn group(first: u64, count: u64, operations: usize) -> Group {
    let entries: Vec<(LogId, Entry)> = (first..first + count).map(|index| (at(index), entry(operations))).collect();
    let digests = vec![[0; 32]; entries.len()];
    Group { previous: first.checked_sub(1).map(at), entries: Arc::new(entries), digests }
}

fn decoded(bytes: Vec<u8>) -> Batch {
    assert!(bytes.len() <= MAX_BYTES, "{}", bytes.len());
    Batch::decode(&bytes.into()).unwrap()
}

fn span(batch: &Batch) -> (Option<u64>, u64) {
    (batch.previous.map(|id| id.index()), batch.last().map_or(0, |id| id.index()))
}

#[test]
fn what_waits_goes_out_in_messages_that_fit_and_follow_each_other() {
    let mut waiting = Waiting::default();
    waiting.add(group(0, 100, 1));
    waiting.add(group(100, 20, 1_000));
    let mut reached = None;
    let mut messages = 0;
    while let Some(bytes) = waiting.next() {
        let batch = decoded(bytes);
        let (previous, last) = span(&batch);
        assert_eq!(previous, reached);
        (reached, messages) = (Some(last), messages + 1);
    }
    assert_eq!(reached, Some(119));
    assert!((3..10).contains(&messages), "{messages}");
}

#[test]
fn behind_a_gap_only_the_newest_are_told_and_what_fits_nowhere_is_left_out() {
    let mut waiting = Waiting::default();
    waiting.add(group(0, 2, 1));
    waiting.add(group(5, 2, 1));
    assert_eq!(span(&decoded(waiting.next().unwrap())), (Some(4), 6));
    waiting.add(group(7, 1, 12_000));
    waiting.add(group(8, 1, 1));
    assert_eq!(span(&decoded(waiting.next().unwrap())), (Some(7), 8));
    assert!(waiting.next().is_none());
}

struct Scene {
    feed: Feed,
    position: watch::Sender<Position>,
    listener: Arc<MemPeer>,
    tasks: TaskGroup,
    _net: MemNet,
}

fn scene(role: Role) -> Scene {
    let net = MemNet::new(1);
    let (speaker, listener) = (net.peer(PeerId::random()), net.peer(PeerId::random()));
    speaker.remember(listener.local_peer(), listener.own_addresses());
    let (feed, queue) = feed();
    let (position, following) = watch::channel(Position { role, ..Position::default() });
    let tasks = TaskGroup::new();
    publish(queue, speaker, following, &tasks);
    Scene { feed, position, listener, tasks, _net: net }
}

impl Scene {
    fn offer(&self, group: Group) {
        self.feed.offer(group.previous, group.entries, group.digests);
    }
}

async fn next(heard: &mut broadcast::Receiver<GossipMessage>) -> Batch {
    let message = tokio::time::timeout(STANDING * 10, heard.recv()).await.unwrap().unwrap();
    let (kind, body) = open(&message.data).unwrap();
    assert_eq!(kind, Kind::Batch);
    Batch::decode(&body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_tells_and_it_says_where_the_log_stands_when_nothing_is_written() {
    let scene = scene(Role::Voter);
    let mut heard = scene.listener.subscribe(Topic::Log);
    scene.offer(group(0, 3, 1));
    tokio::time::sleep(STANDING * 3).await;
    assert!(heard.try_recv().is_err(), "a voter says nothing");

    scene.position.send_modify(|position| position.role = Role::Leader);
    scene.offer(group(3, 2, 1));
    let mut batches = Vec::new();
    while batches.len() < 3 {
        batches.push(next(&mut heard).await);
    }
    // It may have said where the log stood before it took the new entries.
    let told: Vec<_> = batches.iter().filter(|batch| !batch.entries.is_empty()).map(span).collect();
    assert_eq!(told, [(Some(2), 4)]);
    assert_eq!(batches.last().map(span), Some((Some(4), 4)));
    assert!(scene.tasks.shut_down(STANDING).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_offers_never_waits_and_what_finds_no_room_leaves_a_gap() {
    let scene = scene(Role::Leader);
    let mut heard = scene.listener.subscribe(Topic::Log);
    // Nobody takes anything out meanwhile: there is one thread, and this does not give it away.
    for number in 0..100 {
        scene.offer(group(number, 1, 1));
    }
    let first = next(&mut heard).await;
    assert_eq!(span(&first), (None, QUEUE as u64 - 1));
    scene.offer(group(100, 1, 1));
    let second = next(&mut heard).await;
    assert_eq!(span(&second), (Some(99), 100));
}
