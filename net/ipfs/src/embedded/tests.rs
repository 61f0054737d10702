//! Whole nodes against each other, and against peers that misbehave. Loopback only.

mod hostile;
pub(super) mod mem;
mod raw;
mod trouble;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{Block, IpfsError, IpfsNode, PinProgress, PinRequest};
use cluster_core::task::TaskGroup;
use cluster_core::unixfs::CidBuilder;
use cluster_core::unixfs::file::{FileBuilder, FileShape};
use cluster_core::watch;
use cluster_types::{Cid, Codec, PinDepth};
use futures::{StreamExt, TryStreamExt};

use super::wire::{self, Message, Presence, Wantlist};
use super::{EmbeddedConfig, EmbeddedNode, StartError};
use mem::MemBlocks;
use raw::{RawPeer, silent};

/// Long enough for a busy machine; the tests wait for events, not for this.
const PATIENCE: Duration = Duration::from_secs(60);

struct Peer {
    node: Arc<EmbeddedNode>,
    store: Arc<MemBlocks>,
    tasks: TaskGroup,
    folder: tempfile::TempDir,
}

impl Peer {
    async fn start() -> Self {
        Self::over(Arc::new(MemBlocks::default()), PATIENCE).await
    }

    async fn over(store: Arc<MemBlocks>, stall_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = TaskGroup::new();
        let config = EmbeddedConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            stall_timeout,
            request_timeout: Duration::from_millis(400),
            import_grace: Duration::ZERO,
            ..EmbeddedConfig::new(folder.path().join("key"))
        };
        let node = EmbeddedNode::start(config, Arc::clone(&store) as _, &tasks).await.unwrap();
        Self { node, store, tasks, folder }
    }

    async fn connect(&self, other: &Self) {
        self.node.connect(other.node.id().await.unwrap().addresses).await.unwrap();
    }

    async fn pin(&self, cid: Cid) -> Result<(), IpfsError> {
        let request = PinRequest { cid, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
        self.node.pin(request, watch::Sender::new(PinProgress::default())).await
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, Vec::<&str>::new());
        drop(self.folder);
    }
}

fn builder() -> CidBuilder {
    CidBuilder::new(1, "sha2-256").unwrap()
}

fn raw_block(data: impl Into<Bytes>) -> Block {
    let data = data.into();
    Block { cid: builder().cid(Codec::RAW, &data), data }
}

/// A file of `chunks` different chunks, and its root.
fn file(chunks: u32, size: usize) -> (Cid, Vec<Block>) {
    let mut file = FileBuilder::new(builder(), FileShape { raw_leaves: true, ..FileShape::default() });
    let mut blocks = Vec::new();
    for number in 0..chunks {
        file.push(number.to_be_bytes().repeat(size / 4).into(), &mut blocks);
    }
    (file.finish(&mut blocks).cid, blocks)
}

fn wants(entries: &[(Cid, i32)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .map(|(cid, want_type)| wire::Entry {
            cid: cid.to_bytes().into(),
            priority: 1,
            cancel: false,
            want_type: *want_type,
            send_dont_have: true,
        })
        .collect();
    Message { wantlist: Some(Wantlist { entries, full: false }), ..Message::default() }.to_frame()
}

#[tokio::test]
async fn a_dag_of_a_thousand_blocks_comes_from_two_peers_that_have_half_of_it_each() {
    let (left, right, middle) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let (root, blocks) = file(1000, 4096);
    let count = blocks.len();
    let (even, odd): (Vec<_>, Vec<_>) = blocks.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    left.node.put_blocks(even.into_iter().map(|(_, block)| block).collect()).await.unwrap();
    right.node.put_blocks(odd.into_iter().map(|(_, block)| block).collect()).await.unwrap();
    middle.connect(&left).await;
    right.connect(&middle).await;
    let progress = watch::Sender::new(PinProgress::default());
    let request = PinRequest { cid: root, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
    middle.node.pin(request, progress.clone()).await.unwrap();
    assert_eq!(middle.store.len(), count);
    assert_eq!(progress.borrow().blocks, count as u64);
    assert_eq!(middle.node.pinned(root).await.unwrap(), Some(PinDepth::RECURSIVE));
    assert_eq!(middle.node.pins().try_collect::<Vec<_>>().await.unwrap(), [(root, PinDepth::RECURSIVE)]);
    for peer in [left, right, middle] {
        peer.stop().await;
    }
}

#[tokio::test]
async fn a_fetch_that_broke_off_goes_on_with_what_is_missing() {
    let source = Peer::start().await;
    let (root, blocks) = file(400, 1024);
    let total = blocks.len() as u64;
    let is_late = |number: usize| (100..300).contains(&number);
    let (late, early): (Vec<_>, Vec<_>) = blocks.into_iter().enumerate().partition(|(number, _)| is_late(*number));
    source.node.put_blocks(early.into_iter().map(|(_, block)| block).collect()).await.unwrap();

    let store = Arc::new(MemBlocks::default());
    let first = Peer::over(Arc::clone(&store), Duration::from_secs(2)).await;
    first.connect(&source).await;
    assert!(matches!(first.pin(root).await, Err(IpfsError::Stalled { blocks, .. }) if blocks > 0));
    assert_eq!(first.node.pinned(root).await.unwrap(), None);
    first.stop().await;
    let kept = store.puts();
    assert!(kept > 0 && kept <= total - 200, "{kept} blocks came");

    source.node.put_blocks(late.into_iter().map(|(_, block)| block).collect()).await.unwrap();
    let second = Peer::over(Arc::clone(&store), PATIENCE).await;
    second.connect(&source).await;
    second.pin(root).await.unwrap();
    assert_eq!(store.puts(), total, "no block came twice");
    second.stop().await;
    source.stop().await;
}

#[tokio::test]
async fn a_block_that_a_peer_gets_later_comes_to_who_wants_it() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    here.connect(&there).await;
    let block = raw_block(vec![7; 5000]);
    let fetch = here.node.block(block.cid);
    let put = async {
        there.node.put_blocks(vec![raw_block(&b"other"[..])]).await.unwrap();
        there.node.put_blocks(vec![block.clone()]).await.unwrap();
    };
    let (data, ()) = futures::join!(fetch, put);
    assert_eq!(data.unwrap(), block.data);
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn peers_that_hang_or_send_garbage_or_lie_do_not_stop_a_fetch() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let hanging = RawPeer::start(&here.tasks, silent()).await;
    let garbage =
        RawPeer::start(&here.tasks, Arc::new(|_| vec![vec![0xff; 100], vec![5, 1, 2], vec![3, 0xff, 0xff, 0xff]]))
            .await;
    // Promises everything, and sends other bytes under the right prefix.
    let liar = RawPeer::start(
        &here.tasks,
        Arc::new(|message| {
            let entries = message.wantlist.clone().unwrap_or_default().entries;
            let presences = entries.iter().map(|entry| Presence { cid: entry.cid.clone(), kind: wire::HAVE }).collect();
            let payload = entries
                .iter()
                .filter_map(|entry| Cid::from_bytes(&entry.cid).ok())
                .map(|cid| wire::Payload { prefix: wire::prefix_of(&cid), data: Bytes::from_static(b"a lie") })
                .collect();
            vec![Message { presences, payload, ..Message::default() }.to_frame()]
        }),
    )
    .await;
    for bad in [&hanging, &garbage, &liar] {
        here.node.connect(vec![bad.address.clone()]).await.unwrap();
    }
    let (root, blocks) = file(60, 1024);
    let count = blocks.len();
    there.node.put_blocks(blocks).await.unwrap();
    here.connect(&there).await;
    here.pin(root).await.unwrap();
    assert_eq!(here.store.len(), count, "nothing but the DAG was kept");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn questions_are_answered_with_have_dont_have_or_the_block() {
    let here = Peer::start().await;
    let small = raw_block(&b"small"[..]);
    let large = raw_block(vec![1; 5000]);
    let absent = raw_block(vec![2; 5000]);
    here.node.put_blocks(vec![small.clone(), large.clone()]).await.unwrap();
    let mut raw = RawPeer::start(&here.tasks, silent()).await;
    here.node.connect(vec![raw.address.clone()]).await.unwrap();
    let me = here.node.peer_id();
    let ask = |cids: &[Cid]| wants(&cids.iter().map(|cid| (*cid, wire::WANT_HAVE)).collect::<Vec<_>>());
    raw.send(me, ask(&[small.cid, large.cid, absent.cid])).await;

    let (mut have, mut dont_have, mut blocks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    while have.len() + dont_have.len() + blocks.len() < 3 {
        let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
        for presence in message.presences {
            let cid = Cid::from_bytes(&presence.cid).unwrap();
            if presence.kind == wire::HAVE {
                have.insert(cid)
            } else {
                dont_have.insert(cid)
            };
        }
        blocks.extend(message.payload.into_iter().map(|payload| payload.data));
    }
    assert_eq!(have, [large.cid].into());
    assert_eq!(dont_have, [absent.cid].into());
    assert_eq!(blocks, [small.data].into());

    // The absent block is still wanted: when it comes, the peer hears of it.
    here.node.put_blocks(vec![absent.clone()]).await.unwrap();
    let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
    assert_eq!(Cid::from_bytes(&message.presences[0].cid).unwrap(), absent.cid);
    raw.send(me, wants(&[(absent.cid, wire::WANT_BLOCK)])).await;
    let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
    assert_eq!(message.payload[0].data, absent.data);
    here.stop().await;
}

#[tokio::test]
async fn many_large_blocks_are_split_over_messages_within_the_limit() {
    let here = Peer::start().await;
    let blocks: Vec<_> = (0..8_u8).map(|number| raw_block(vec![number; 2 * 1024 * 1024])).collect();
    here.node.put_blocks(blocks.clone()).await.unwrap();
    let mut raw = RawPeer::start(&here.tasks, silent()).await;
    here.node.connect(vec![raw.address.clone()]).await.unwrap();
    let entries: Vec<_> = blocks.iter().map(|block| (block.cid, wire::WANT_BLOCK)).collect();
    raw.send(here.node.peer_id(), wants(&entries)).await;
    let mut got = 0;
    while got < blocks.len() {
        // A message above the limit would not be read, and nothing would come.
        let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
        got += message.payload.len();
    }
    here.stop().await;
}

#[tokio::test]
async fn garbage_collection_keeps_what_is_pinned_and_removes_the_rest() {
    let here = Peer::start().await;
    let (root, blocks) = file(300, 256);
    let (other, garbage) = file(200, 512);
    let alone = raw_block(&b"direct"[..]);
    here.node.put_blocks([blocks.clone(), garbage.clone(), vec![alone.clone()]].concat()).await.unwrap();
    here.pin(root).await.unwrap();
    here.pin(alone.cid).await.unwrap();
    let removed = here.node.collect_garbage().await.unwrap();
    assert!(blocks.iter().chain([&alone]).all(|block| here.store.holds(&block.cid)));
    // A few pieces may survive a run, not two.
    assert!(removed.len() + 5 > garbage.len(), "{} of {} removed", removed.len(), garbage.len());
    here.node.collect_garbage().await.unwrap();
    assert!(!here.store.holds(&other));
    here.node.unpin(root).await.unwrap();
    here.node.collect_garbage().await.unwrap();
    here.node.collect_garbage().await.unwrap();
    assert_eq!(here.store.len(), 1);
    here.stop().await;
}

#[tokio::test]
async fn garbage_collection_beside_a_fetch_and_a_pin_takes_nothing_from_them() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let (root, blocks) = file(500, 1024);
    let (local, imported) = file(500, 512);
    there.node.put_blocks(blocks.clone()).await.unwrap();
    here.node.put_blocks(imported.clone()).await.unwrap();
    here.connect(&there).await;
    let collecting = async {
        let mut runs = 0;
        while here.node.pinned(root).await.unwrap().is_none() {
            here.node.collect_garbage().await.unwrap();
            runs += 1;
            tokio::task::yield_now().await;
        }
        runs
    };
    let (local_pinned, fetched, runs) = futures::join!(here.pin(local), here.pin(root), collecting);
    local_pinned.unwrap();
    fetched.unwrap();
    assert!(runs > 0);
    here.node.collect_garbage().await.unwrap();
    assert!(blocks.iter().chain(&imported).all(|block| here.store.holds(&block.cid)));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn an_import_survives_until_it_is_pinned() {
    let store = Arc::new(MemBlocks::default());
    let tasks = TaskGroup::new();
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        import_grace: Duration::from_secs(3600),
        ..EmbeddedConfig::new(folder.path().join("key"))
    };
    let node = EmbeddedNode::start(config, Arc::clone(&store) as _, &tasks).await.unwrap();
    node.put_blocks(vec![raw_block(&b"not pinned yet"[..])]).await.unwrap();
    assert_eq!(node.collect_garbage().await.unwrap(), []);
    assert_eq!(store.len(), 1);
    tasks.shut_down(PATIENCE).await;
}

#[tokio::test]
async fn a_lost_peer_is_connected_again() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    here.connect(&there).await;
    let address = there.node.id().await.unwrap().addresses.remove(0);
    let listen: cluster_types::Multiaddr =
        address.iter().filter(|part| !matches!(part, cluster_types::Protocol::P2p(_))).collect();
    let key_file = there.folder.path().join("key");
    there.tasks.shut_down(PATIENCE).await;
    drop(there.node);
    tokio::time::timeout(PATIENCE, async {
        while !here.node.connected().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let tasks = TaskGroup::new();
    let config = EmbeddedConfig { listen: vec![listen], ..EmbeddedConfig::new(key_file) };
    let again = EmbeddedNode::start(config, Arc::new(MemBlocks::default()), &tasks).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while !here.node.connected().await.unwrap().contains(&again.peer_id().to_string()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    tasks.shut_down(PATIENCE).await;
    here.stop().await;
}

#[tokio::test]
async fn a_fetch_that_is_dropped_tells_the_peers() {
    let here = Peer::start().await;
    let mut raw = RawPeer::start(&here.tasks, silent()).await;
    here.node.connect(vec![raw.address.clone()]).await.unwrap();
    let cid = raw_block(vec![3; 100]).cid;
    let asked = async |cancel: bool, raw: &mut RawPeer| loop {
        let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
        let entries = message.wantlist.unwrap_or_default().entries;
        if entries.iter().any(|entry| entry.cid == cid.to_bytes() && entry.cancel == cancel) {
            break;
        }
    };
    {
        let fetch = here.node.block(cid);
        tokio::pin!(fetch);
        tokio::select! {
            _ = &mut fetch => panic!("nobody has it"),
            () = asked(false, &mut raw) => {}
        }
    }
    asked(true, &mut raw).await;
    here.stop().await;
}

#[tokio::test]
async fn a_flood_of_wants_and_a_message_that_does_not_come_leave_the_node_as_it_was() {
    let here = Peer::start().await;
    let block = raw_block(vec![9; 3000]);
    here.node.put_blocks(vec![block.clone()]).await.unwrap();
    let mut raw = RawPeer::start(&here.tasks, silent()).await;
    here.node.connect(vec![raw.address.clone()]).await.unwrap();
    let me = here.node.peer_id();
    for round in 0..5_u32 {
        let flood: Vec<_> = (0..3000_u32)
            .map(|number| (raw_block((round * 3000 + number).to_be_bytes().to_vec()).cid, wire::WANT_HAVE))
            .collect();
        raw.send(me, wants(&flood)).await;
    }
    raw.send(me, vec![0x80, 0x80, 0x80, 0x02]).await; // Promises 4 MiB and sends nothing.
    raw.send(me, wants(&[(block.cid, wire::WANT_BLOCK)])).await;
    loop {
        let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.unwrap().unwrap();
        if message.payload.iter().any(|payload| payload.data == block.data) {
            break;
        }
        // Wants beyond the limit may be ignored, so the peer asks again.
        raw.send(me, wants(&[(block.cid, wire::WANT_BLOCK)])).await;
    }
    here.stop().await;
}
