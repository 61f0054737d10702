//! Writes a DAG as a CAR archive, block by block in one fixed order: every block before those it links to, in the order of
//! its links, and only where it is linked first. That is what `ipfs dag export` writes.
//!
//! **Invariant:** at most [`AHEAD`] blocks are fetched ahead, and [`MAX_LINKS`] links wait in all open blocks together.
//! **Invariant:** of blocks that were written at most [`MAX_SEEN`] are remembered (some 40 MB): behind that, one that is
//! linked again may be in the archive twice, which readers must bear.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{BoxError, Cid, Codec, PinDepth};
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::car;
use super::hash::identity_data;
use super::ipld::{DagError, links};
use super::read::ReadError;
use crate::ports::Block;

/// Blocks fetched ahead of the one that is written.
const AHEAD: usize = 16;
/// Links of blocks that are not finished: about 100 bytes each.
const MAX_LINKS: usize = 512 * 1024;
/// Blocks above each other.
const MAX_DEPTH: usize = 16 * 1024;
/// Blocks that are remembered.
const MAX_SEEN: usize = 1_000_000;

/// A CAR archive of the DAG of `root`, as deep as `depth` says.
///
/// Every block is asked for once, some before their turn; `fetch` answers with blocks that match their CIDs. What goes wrong
/// ends the stream, and the archive is not whole then.
pub fn export<F, Fut>(fetch: F, root: Cid, depth: PinDepth) -> impl Stream<Item = Result<Bytes, ReadError>> + Send
where
    F: Fn(Cid) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, BoxError>> + Send + 'static,
{
    let levels = usize::try_from(depth.0).ok();
    async_stream::try_stream! {
        yield car::write_header(&[root]);
        let ahead = Arc::new(Semaphore::new(AHEAD));
        let mut seen = Seen::default();
        let mut waiting = 1;
        let mut open = vec![Level { left: VecDeque::from([root]), coming: FuturesOrdered::new() }];
        while let Some(level) = open.last_mut() {
            level.fetch(&fetch, &ahead);
            let Some((cid, data)) = level.coming.next().await else {
                open.pop();
                continue;
            };
            waiting -= 1;
            let (data, _permit) = data?;
            // What is open holds the root: it is one more than the links that were followed.
            let below = levels.map_or(usize::MAX, |levels| levels.saturating_sub(open.len() - 1));
            if !seen.is_new(&cid, below) {
                continue;
            }
            // A block that its CID holds need not be kept.
            if identity_data(&cid).is_none() {
                yield car::write_block(&Block { cid, data: data.clone() });
            }
            if cid.codec() == Codec::RAW || below == 0 {
                continue;
            }
            let left: VecDeque<Cid> = links(&cid, &data)?.into();
            waiting += left.len();
            if waiting > MAX_LINKS || open.len() > MAX_DEPTH {
                Err(DagError::new(&cid, "too much of the DAG is open at once: it is nested too deeply"))?;
            }
            open.push(Level { left, coming: FuturesOrdered::new() });
        }
    }
}

/// A block on its way, and the permission to fetch it ahead.
type Coming = (Cid, Result<(Bytes, Option<OwnedSemaphorePermit>), ReadError>);

/// The links of an open block that are not written yet.
struct Level {
    left: VecDeque<Cid>,
    coming: FuturesOrdered<BoxFuture<'static, Coming>>,
}

impl Level {
    /// Has blocks come: the next one in any case, more as long as there is room for them.
    fn fetch<F, Fut>(&mut self, fetch: &F, ahead: &Arc<Semaphore>)
    where
        F: Fn(Cid) -> Fut,
        Fut: Future<Output = Result<Bytes, BoxError>> + Send + 'static,
    {
        loop {
            let permit = Arc::clone(ahead).try_acquire_owned().ok();
            if permit.is_none() && !self.coming.is_empty() {
                return;
            }
            let Some(cid) = self.left.pop_front() else { return };
            let block = match identity_data(&cid) {
                Some(data) => futures::future::ready(Ok(Bytes::copy_from_slice(data))).left_future(),
                None => fetch(cid).right_future(),
            };
            let coming = block.map(move |block| {
                let block = block.map_err(|cause| ReadError::Fetch { cid, cause });
                (cid, block.map(|data| (data, permit)))
            });
            self.coming.push_back(coming.boxed());
        }
    }
}

/// The blocks that were written, by a keyed fingerprint.
#[derive(Default)]
struct Seen {
    blocks: HashSet<u128>,
    keys: (RandomState, RandomState),
}

impl Seen {
    /// Whether a block was not written yet with so many levels below it.
    fn is_new(&mut self, cid: &Cid, below: usize) -> bool {
        let name = (cid.version(), cid.codec(), cid.hash_bytes(), below);
        let fingerprint = u128::from(self.keys.0.hash_one(&name)) << 64 | u128::from(self.keys.1.hash_one(&name));
        match self.blocks.len() < MAX_SEEN {
            true => self.blocks.insert(fingerprint),
            false => !self.blocks.contains(&fingerprint),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::TryStreamExt;

    use super::*;
    use crate::unixfs::CidBuilder;
    use crate::unixfs::car::CarReader;
    use crate::unixfs::dagpb::{NewLink, encode};

    /// Blocks, and how many of them are asked for at a time.
    #[derive(Clone, Default)]
    struct Blocks {
        blocks: Arc<HashMap<Cid, Bytes>>,
        under_way: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Blocks {
        async fn get(self, cid: Cid) -> Result<Bytes, BoxError> {
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.blocks.get(&cid).cloned().ok_or_else(|| "absent".into())
        }
    }

    /// A DAG given as lists of links, which end at 0; numbers without a list are leaves.
    fn dag(nodes: &BTreeMap<usize, Vec<usize>>) -> (Blocks, HashMap<usize, Cid>) {
        let cids = CidBuilder::new(1, "sha2-256").unwrap();
        let (mut blocks, mut names) = (HashMap::new(), HashMap::new());
        let leaves = nodes.values().flatten().filter(|number| !nodes.contains_key(number));
        for leaf in leaves {
            let data = Bytes::from(leaf.to_string());
            let cid = cids.cid(Codec::RAW, &data);
            names.insert(*leaf, cid);
            blocks.insert(cid, data);
        }
        // Links lead to larger numbers.
        for (number, below) in nodes.iter().rev() {
            let links = below.iter().map(|below| NewLink { cid: names[below], name: "".into(), size: 0 });
            let data = Bytes::from(encode(links, number.to_string().as_bytes()));
            let cid = cids.cid(Codec::DAG_PB, &data);
            names.insert(*number, cid);
            blocks.insert(cid, data);
        }
        (Blocks { blocks: Arc::new(blocks), ..Blocks::default() }, names)
    }

    async fn exported(blocks: &Blocks, root: Cid, depth: PinDepth) -> Result<Vec<Cid>, ReadError> {
        let fetching = blocks.clone();
        let pieces: Vec<Bytes> = export(move |cid| fetching.clone().get(cid), root, depth).try_collect().await?;
        let mut reader = CarReader::new();
        let mut found = Vec::new();
        for piece in pieces {
            reader.push(&piece);
            while let Some(block) = reader.next_block().unwrap() {
                found.push(block.cid);
            }
        }
        reader.finish().unwrap();
        assert_eq!(reader.roots(), Some(&[root][..]));
        Ok(found)
    }

    #[tokio::test]
    async fn blocks_come_once_and_before_what_they_link_to() {
        let nodes = BTreeMap::from([(0, vec![1, 2, 10]), (1, vec![10, 11]), (2, vec![3, 12]), (3, vec![11, 13])]);
        let (blocks, names) = dag(&nodes);
        let numbers = |wanted: &[usize]| wanted.iter().map(|number| names[number]).collect::<Vec<_>>();
        let all = exported(&blocks, names[&0], PinDepth::RECURSIVE).await.unwrap();
        assert_eq!(all, numbers(&[0, 1, 10, 11, 2, 3, 13, 12]));
        assert_eq!(exported(&blocks, names[&0], PinDepth::DIRECT).await.unwrap(), numbers(&[0]));
        assert_eq!(exported(&blocks, names[&0], PinDepth(1)).await.unwrap(), numbers(&[0, 1, 2, 10]));
        assert_eq!(exported(&blocks, names[&10], PinDepth::RECURSIVE).await.unwrap(), numbers(&[10]));
    }

    #[tokio::test]
    async fn a_bounded_number_of_blocks_is_fetched_ahead() {
        let mut nodes = BTreeMap::new();
        for level in 0..50 {
            let leaves = 1_000 + level * 100..1_000 + (level + 1) * 100;
            nodes.insert(level, leaves.clone().take(50).chain([level + 1]).chain(leaves.skip(50)).collect());
        }
        let (blocks, names) = dag(&nodes);
        assert_eq!(exported(&blocks, names[&0], PinDepth::RECURSIVE).await.unwrap().len(), 51 + 5_000);
        let most = blocks.most.load(Ordering::Relaxed);
        assert!((2..=AHEAD).contains(&most), "{most}");
    }

    #[tokio::test]
    async fn a_dag_that_doubles_at_every_level_is_written_once() {
        let (blocks, names) = dag(&(0..60).map(|level| (level, vec![level + 1, level + 1])).collect());
        assert_eq!(exported(&blocks, names[&0], PinDepth::RECURSIVE).await.unwrap().len(), 61);
    }

    #[tokio::test]
    async fn a_block_that_does_not_come_ends_the_archive() {
        let (blocks, names) = dag(&BTreeMap::from([(0, vec![1, 2])]));
        let mut left = HashMap::clone(&blocks.blocks);
        left.remove(&names[&2]);
        let blocks = Blocks { blocks: Arc::new(left), ..blocks };
        let error = exported(&blocks, names[&0], PinDepth::RECURSIVE).await.unwrap_err();
        assert!(matches!(error, ReadError::Fetch { cid, .. } if cid == names[&2]), "{error}");
    }
}
