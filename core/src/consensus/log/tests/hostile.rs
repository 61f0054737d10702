//! Somebody who knows the secret and is no member: whatever it sends, nothing changes.

use bytes::Bytes;
use openraft::alias::EntryOf;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::{EntryPayload, Membership};

use super::*;
use crate::ports::Purpose;
use crate::rpc::{PeerClient, decode_raft_reply, encode_raft};

const HUGE: u64 = 1 << 40;

/// Everything that could make a node change its mind, in the name of node `id`.
fn messages(id: NodeId, stranger: PeerId) -> Vec<RaftMessage> {
    let log_id = |index| openraft::LogId::new(HUGE.into(), index);
    let last = Some(log_id(HUGE));
    let (asks, leads) = (Vote::new(HUGE, id), Vote::new_committed(HUGE, id));
    let node = Node { peer: stranger, addresses: Vec::new() };
    let membership = Membership::new(vec![[id].into()], std::collections::BTreeMap::from([(id, node)])).unwrap();
    let entry: EntryOf<TypeConfig> =
        openraft::Entry { log_id: log_id(0), payload: EntryPayload::Membership(membership.clone()) };
    let append = |entries| AppendEntriesRequest { vote: leads, prev_log_id: None, entries, leader_commit: last };
    let mut transfer = VoteRequest::new(asks, last);
    transfer.leadership_transfer = true;
    let meta = SnapshotMeta { last_log_id: last, last_membership: StoredMembership::new(last, membership) };
    let position = AppliedPosition { last, membership: meta.last_membership.clone(), ..AppliedPosition::default() };
    let applied = Bytes::from(rmp_serde::to_vec_named(&position).unwrap());
    vec![
        RaftMessage::Vote(VoteRequest::new(asks, last)),
        RaftMessage::Vote(transfer),
        RaftMessage::PreVote(VoteRequest::new(asks, last)),
        RaftMessage::Append(append(vec![])),
        RaftMessage::Append(append(vec![entry])),
        RaftMessage::TransferLeader(TransferLeaderRequest::new(leads, id, last)),
        RaftMessage::SnapshotBase,
        RaftMessage::SnapshotOffer {
            transfer: 7,
            vote: leads,
            meta,
            base: None,
            manifest: applied.clone(),
            annex: applied,
        },
        RaftMessage::SnapshotAnnex { transfer: 7, sequence: 0, rows: Bytes::from_static(b"rows") },
        RaftMessage::SnapshotWait { transfer: 7 },
    ]
}

async fn send(from: &MemPeer, to: &TestNode, message: RaftMessage) -> RaftReply {
    let call = encode_raft(&RaftCall { to: to.consensus.node_id, clock: 0, message }).unwrap();
    let answer = from.call(to.peer(), Purpose::Control, call, Duration::from_secs(30)).await.unwrap();
    decode_raft_reply(&answer).unwrap()
}

/// A peer with the secret that knows where the nodes are.
fn outsider(net: &MemNet, nodes: &[TestNode]) -> Arc<MemPeer> {
    let outsider = net.peer(PeerId::random());
    for node in nodes {
        outsider.remember(node.peer(), node.network.own_addresses());
    }
    outsider
}

#[tokio::test(start_paused = true)]
async fn raft_messages_of_who_is_no_member_change_nothing() {
    let net = MemNet::new(20);
    let nodes = three(&net).await;
    nodes[0].pin(1).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let stranger = outsider(&net, &nodes);
    let before: Vec<_> = nodes.iter().map(|node| node.disks.log.extent(false)).collect();
    let digests = [nodes[0].digest().await, nodes[1].digest().await, nodes[2].digest().await];
    // As itself and in the names of members, each twice: a replay is a message of a stranger like any other.
    let names = [1 << 63 | 5, 99, nodes[0].consensus.node_id, nodes[1].consensus.node_id];
    for (name, node) in names.iter().flat_map(|name| nodes.iter().map(move |node| (name, node))) {
        for message in messages(*name, stranger.local_peer()).into_iter().chain(messages(*name, stranger.local_peer()))
        {
            let told = format!("{message:?}");
            let reply = send(&stranger, node, message).await;
            assert!(matches!(&reply, RaftReply::Refused(why) if why.contains("not a member")), "{told}: {reply:?}");
        }
    }
    for (node, (before, digest)) in nodes.iter().zip(before.into_iter().zip(digests)) {
        assert_eq!(node.disks.log.extent(false), before, "neither vote nor log changed");
        assert_eq!(node.digest().await, digest);
        assert_eq!(node.consensus.trouble(), None);
    }
    let after = nodes[1].pin(2).await.unwrap();
    assert_eq!(term(&after), term_of(&nodes[0]), "and nobody had to be elected");
}

fn term_of(node: &TestNode) -> u64 {
    node.consensus.position().borrow().term
}

#[tokio::test(start_paused = true)]
async fn a_member_speaks_only_for_itself() {
    let net = MemNet::new(21);
    let nodes = three(&net).await;
    let id = nodes[0].consensus.node_id;
    let reply =
        send(&nodes[1].network, &nodes[2], RaftMessage::PreVote(VoteRequest::new(Vote::new(HUGE, id), None))).await;
    assert!(matches!(reply, RaftReply::Refused(_)), "{reply:?}");
    let own = nodes[1].consensus.node_id;
    let reply =
        send(&nodes[1].network, &nodes[2], RaftMessage::PreVote(VoteRequest::new(Vote::new(2, own), None))).await;
    assert!(matches!(reply, RaftReply::Vote(_)), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_of_who_is_no_member_change_nothing_and_newcomers_are_bounded() {
    let net = MemNet::new(22);
    let nodes = three(&net).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    assert_equal(&all).await;
    let leader = leader_among(&all).await;
    let stranger = outsider(&net, &nodes);
    let client = PeerClient::new(Arc::clone(&stranger) as _);
    let ask = |call: Call| {
        let client = client.clone();
        async move { client.ask(leader.peer(), &call, Duration::from_secs(5)).await }
    };
    let (peer, before) = (stranger.local_peer(), leader.digest().await);
    for call in [
        Call::Submit { id: [1; 16], request: Request::Pin(Box::new(pin(1))), until: None },
        Call::ReadIndex,
        Call::RemovePeer { peer: nodes[0].peer() },
        Call::JoinFor { peer, node_id: 3, addresses: Vec::new() },
        Call::Removed { node_id: leader.consensus.node_id },
    ] {
        let refused = ask(call.clone()).await.unwrap_err();
        assert!(refused.message.contains("not a member"), "{call:?}: {refused}");
    }
    assert_eq!(leader.digest().await, before);
    assert!(!leader.consensus.position().borrow().removed);
    let mut taken = 0;
    for _ in 0..500 {
        taken += u32::from(ask(Call::Reserve).await.is_ok());
    }
    assert!((1..100).contains(&taken), "{taken} log entries of a stranger");
}

#[tokio::test(start_paused = true)]
async fn a_merge_that_no_message_could_carry_on_is_refused() {
    let net = MemNet::new(41);
    let nodes = several(&net, 1, settings()).await;
    nodes[0].pin(1).await.unwrap();
    let mut pin = pin(2);
    pin.options.metadata.insert("k".to_owned(), "v".repeat(60_000));
    let write = crate::crdt::merge::Write::join(PeerId::random(), pin.timestamp, pin);
    let writes = vec![crate::crdt::merge::Eventual::new(write).unwrap(); 5];
    let placed = nodes[0].consensus.propose_here([1; 16], Request::Merge(writes), None).await.unwrap();
    assert!(matches!(placed.outcome, Outcome::Refused(ref why) if why.class == ErrorClass::Invalid), "{placed:?}");
    assert!(nodes[0].pin(3).await.is_ok(), "the log goes on");
}

#[tokio::test(start_paused = true)]
async fn an_excerpt_for_another_index_is_not_taken_for_the_manifest() {
    let net = MemNet::new(22);
    let nodes = three(&net).await;
    nodes[0].pin(1).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let RaftReply::Base(Some(base)) = send(&nodes[0].network, &nodes[1], RaftMessage::SnapshotBase).await else {
        panic!("it has a state");
    };
    assert_eq!(base, *nodes[1].consensus.applied().borrow());
    let frozen = nodes[0].disks.state.make_snapshot().await.unwrap();
    let manifest = crate::catchup::stage::manifest_of(&frozen).await.unwrap();
    let excerpt = crate::catchup::stage::excerpt_of(&frozen, &manifest, base).await.unwrap();
    let position = AppliedPosition::decode(Some(&frozen.applied())).unwrap();
    let offer = |base, manifest| RaftMessage::SnapshotOffer {
        transfer: 7,
        vote: Vote::new_committed(term_of(&nodes[0]), nodes[0].consensus.node_id),
        meta: SnapshotMeta { last_log_id: position.last, last_membership: position.membership.clone() },
        base,
        manifest,
        annex: crate::catchup::AnnexSums::default().encode().into(),
    };
    let encoded = crate::catchup::encode_excerpt(&excerpt);
    let reply = send(&nodes[0].network, &nodes[1], offer(Some(base - 1), encoded.clone())).await;
    assert!(matches!(reply, RaftReply::NeedsManifest), "{reply:?}");
    let reply = send(&nodes[0].network, &nodes[1], offer(Some(base), Bytes::from_static(b"nonsense"))).await;
    assert!(matches!(reply, RaftReply::Refused(_)), "{reply:?}");
    let reply = send(&nodes[0].network, &nodes[1], offer(Some(base), encoded)).await;
    assert!(matches!(reply, RaftReply::Lacks(_) | RaftReply::Joined), "{reply:?}");
}
