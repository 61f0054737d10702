//! The embedded node against the contract of its port, and against a real Kubo when there is one: each fetches from
//! the other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cluster_core::ports::{Block, IpfsNode, PinProgress, PinRequest};
use cluster_core::task::TaskGroup;
use cluster_core::testing::suite::ipfs::{self, IpfsFactory, IpfsFixture};
use cluster_core::unixfs::directory::{DirectoryShape, build_directory};
use cluster_core::unixfs::file::{Built, FileBuilder, FileShape};
use cluster_core::unixfs::{CidBuilder, read};
use cluster_core::watch;
use cluster_ipfs::embedded::{EmbeddedConfig, EmbeddedNode};
use cluster_ipfs::kubo::{Kubo, KuboConfig};
use cluster_types::{BoxError, Cid, PinDepth};
use futures::TryStreamExt;

#[path = "../../../tests/src/kubo.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with other test binaries, which need more of it")]
mod kubo_daemon;
#[path = "../src/embedded/tests/mem.rs"]
#[expect(dead_code, reason = "shared with the unit tests, which need more of it")]
mod mem;

use kubo_daemon::KuboDaemon;
use mem::MemBlocks;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const CHUNK: usize = 256 * 1024;

struct Embedded {
    node: Arc<EmbeddedNode>,
    store: Arc<MemBlocks>,
    tasks: TaskGroup,
    _folder: tempfile::TempDir,
}

impl Embedded {
    async fn start(stall_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, tasks) = (Arc::new(MemBlocks::default()), TaskGroup::new());
        let config = EmbeddedConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            stall_timeout,
            import_grace: Duration::ZERO,
            ..EmbeddedConfig::new(folder.path().join("key"))
        };
        let node = EmbeddedNode::start(config, Arc::clone(&store) as _, &tasks).await.unwrap();
        Self { node, store, tasks, _folder: folder }
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, Vec::<&str>::new());
    }
}

struct Factory;

#[async_trait]
impl IpfsFactory for Factory {
    async fn node(&self) -> IpfsFixture {
        let embedded = Embedded::start(Duration::from_millis(400)).await;
        IpfsFixture { node: Arc::clone(&embedded.node) as _, keep: Box::new(embedded) }
    }
}

#[tokio::test]
async fn the_contract_holds_over_the_embedded_node() {
    assert_eq!(ipfs::run(&Factory).await, 21);
}

/// Bytes that no chunk of them repeats.
fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = BytesMut::with_capacity(bytes + 8);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    data.freeze()
}

fn cids() -> CidBuilder {
    CidBuilder::new(1, "sha2-256").unwrap()
}

fn file(data: &Bytes, blocks: &mut Vec<Block>) -> Built {
    let mut file = FileBuilder::new(cids(), FileShape { raw_leaves: true, ..FileShape::default() });
    for start in (0..data.len()).step_by(CHUNK) {
        file.push(data.slice(start..data.len().min(start + CHUNK)), blocks);
    }
    file.finish(blocks)
}

fn directory_of_a_thousand_files(blocks: &mut Vec<Block>) -> Built {
    let files: BTreeMap<_, _> =
        (0..1000).map(|number| (format!("file {number}"), file(&noise(number + 7, 700), blocks))).collect();
    build_directory(cids(), &DirectoryShape::default(), &files, &mut |block| blocks.push(block)).unwrap()
}

async fn pin(node: &dyn IpfsNode, cid: Cid) -> PinProgress {
    let request = PinRequest { cid, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
    let progress = watch::Sender::new(PinProgress::default());
    node.pin(request, progress.clone()).await.unwrap();
    assert_eq!(node.pinned(cid).await.unwrap(), Some(PinDepth::RECURSIVE));
    *progress.borrow()
}

async fn kubo() -> Option<(KuboDaemon, Arc<Kubo>)> {
    let daemon = KuboDaemon::start().await?;
    let config = KuboConfig { pin_timeout: PATIENCE, ..KuboConfig::new(daemon.rpc().parse().unwrap()) };
    let node = Kubo::new(config).unwrap();
    Some((daemon, node))
}

#[tokio::test]
async fn kubo_fetches_and_pins_from_the_embedded_node() {
    let Some((_daemon, kubo)) = kubo().await else { return };
    let here = Embedded::start(PATIENCE).await;
    let addresses = here.node.id().await.unwrap().addresses;
    for bytes in [3_000_000, 100_000_000] {
        let mut blocks = Vec::new();
        let root = file(&noise(bytes as u64, bytes), &mut blocks);
        let last = blocks[blocks.len() / 2].clone();
        here.node.put_blocks(blocks).await.unwrap();
        kubo.connect(addresses.clone()).await.unwrap();
        pin(kubo.as_ref(), root.cid).await;
        assert_eq!(kubo.block(last.cid).await.unwrap(), last.data);
    }
    let mut blocks = Vec::new();
    let root = directory_of_a_thousand_files(&mut blocks);
    here.node.put_blocks(blocks).await.unwrap();
    pin(kubo.as_ref(), root.cid).await;
    assert_eq!(here.node.connected().await.unwrap().len(), 1, "Kubo stays connected");
    here.stop().await;
}

#[tokio::test]
async fn the_embedded_node_fetches_and_pins_from_kubo() {
    let Some((_daemon, kubo)) = kubo().await else { return };
    let here = Embedded::start(PATIENCE).await;
    here.node.connect(kubo.id().await.unwrap().addresses).await.unwrap();
    for bytes in [3_000_000, 100_000_000] {
        let mut blocks = Vec::new();
        let data = noise(bytes as u64 + 1, bytes);
        let root = file(&data, &mut blocks);
        for batch in blocks.chunks(64) {
            kubo.put_blocks(batch.to_vec()).await.unwrap();
        }
        let progress = pin(here.node.as_ref(), root.cid).await;
        assert_eq!((progress.blocks, here.store.holds(&root.cid)), (blocks.len() as u64, true));
        let fetch = |cid| {
            let node = Arc::clone(&here.node);
            async move { node.block(cid).await.map_err(BoxError::from) }
        };
        let pieces: Vec<Bytes> = read::read_file(fetch, root.cid, 0..u64::MAX).try_collect().await.unwrap();
        assert!(pieces.concat() == data, "the file is another");
    }
    let mut blocks = Vec::new();
    let root = directory_of_a_thousand_files(&mut blocks);
    for batch in blocks.chunks(64) {
        kubo.put_blocks(batch.to_vec()).await.unwrap();
    }
    let before = (here.store.puts(), here.store.len());
    pin(here.node.as_ref(), root.cid).await;
    assert!(before.0 + 1000 < here.store.puts() && before.1 + 1000 < here.store.len());
    here.stop().await;
}

#[tokio::test]
async fn a_block_that_kubo_lacks_at_first_comes_when_it_has_it() {
    let Some((_daemon, kubo)) = kubo().await else { return };
    let here = Embedded::start(PATIENCE).await;
    here.node.connect(kubo.id().await.unwrap().addresses).await.unwrap();
    let mut blocks = Vec::new();
    let root = file(&noise(99, 100_000), &mut blocks);
    let waiting = pin(here.node.as_ref(), root.cid);
    let put = async { kubo.put_blocks(blocks.clone()).await.unwrap() };
    futures::join!(waiting, put);
    // And the other way.
    let mut blocks = Vec::new();
    let root = file(&noise(100, 100_000), &mut blocks);
    let waiting = pin(kubo.as_ref(), root.cid);
    let put = async { here.node.put_blocks(blocks.clone()).await.unwrap() };
    futures::join!(waiting, put);
    here.stop().await;
}
