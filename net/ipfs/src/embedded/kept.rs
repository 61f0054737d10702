//! The block store, with what garbage collection must not touch.
//!
//! **Invariant:** while a collection runs, a block that is put or looked at by a fetch is added to the set of live
//! blocks before the store is asked, under the read side of `gate`; the sweep checks and deletes under its write side.
//! So no block is swept that somebody has just been told is there.
//! **Invariant:** the root of a running fetch is in `active` from before its first block until after its root is kept.
//! A fetch that began before the collection is marked from there, one that begins later adds what it sees.
//! **Invariant:** blocks of a running import are in `recent`: it is emptied only when no import holds a [`Lease`] and
//! nothing was put for `import_grace`, and its oldest part is dropped only after [`RECENT_BLOCKS`] newer ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{Block, BlockError, Blockstore, Root};
use cluster_types::ErrorChain;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::time::Instant;

use super::filter::Filter;

/// How many blocks put lately are remembered at least: 1 TiB of 256 KiB blocks. Two filters of this size are 16 MiB,
/// taken when the first block is put.
const RECENT_BLOCKS: u64 = 4 * 1024 * 1024;

/// The store behind the embedded node.
pub(super) struct Kept {
    store: Arc<dyn Blockstore>,
    gate: RwLock<()>,
    live: Mutex<Option<Filter>>,
    recent: Mutex<Recent>,
    active: Mutex<BTreeMap<u64, Root>>,
}

/// Blocks that were put and may not be pinned yet.
#[derive(Debug)]
struct Recent {
    grace: Duration,
    /// Imports that are under way: while there is one, nothing is forgotten.
    leases: usize,
    last_put: Option<Instant>,
    newer: Option<Filter>,
    older: Option<Filter>,
}

impl Recent {
    fn note(&mut self, multihash: &[u8], now: Instant) {
        if self.grace.is_zero() && self.leases == 0 {
            return;
        }
        self.forget_if_quiet(now);
        self.last_put = Some(now);
        if self.newer.as_ref().is_none_or(Filter::is_full) {
            self.older = self.newer.replace(Filter::for_blocks(RECENT_BLOCKS));
        }
        if let Some(newer) = &mut self.newer {
            newer.insert(multihash);
        }
    }

    fn contains(&mut self, multihash: &[u8], now: Instant) -> bool {
        self.forget_if_quiet(now);
        [&self.newer, &self.older].into_iter().flatten().any(|filter| filter.contains(multihash))
    }

    fn forget_if_quiet(&mut self, now: Instant) {
        if self.leases == 0 && self.last_put.is_some_and(|last| now.saturating_duration_since(last) > self.grace) {
            (self.last_put, self.newer, self.older) = (None, None, None);
        }
    }
}

impl Kept {
    /// Wraps `store`; blocks put and not yet pinned are safe until nothing was put for `import_grace`.
    pub(super) fn new(store: Arc<dyn Blockstore>, import_grace: Duration) -> Self {
        let recent = Recent { grace: import_grace, leases: 0, last_put: None, newer: None, older: None };
        Self {
            store,
            gate: RwLock::new(()),
            live: Mutex::new(None),
            recent: Mutex::new(recent),
            active: Mutex::new(BTreeMap::new()),
        }
    }

    /// The store itself, for what needs no protection.
    pub(super) fn store(&self) -> &dyn Blockstore {
        self.store.as_ref()
    }

    /// The bytes of a block.
    pub(super) async fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError> {
        self.store.get(multihash).await
    }

    /// The bytes of a block that could be fetched again: a damaged one is removed, and counts as absent.
    pub(super) async fn get_sound(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError> {
        match self.get(multihash).await {
            Err(error @ BlockError::Damaged { .. }) => {
                tracing::warn!(error = %ErrorChain(&error), "removed a damaged block; it is fetched anew");
                self.store.delete(vec![multihash.to_vec()]).await?;
                Ok(None)
            }
            other => other,
        }
    }

    /// The size of a block that the caller is going to rely on: a running collection will leave it alone.
    pub(super) async fn touch(&self, multihash: &[u8]) -> Result<Option<u64>, BlockError> {
        let _gate = self.gate.read().await;
        if let Some(live) = self.live.lock().as_mut() {
            live.insert(multihash);
        }
        self.store.size(multihash).await
    }

    /// Keeps blocks that a fetch asked for.
    pub(super) async fn put_fetched(&self, blocks: Vec<Block>) -> Result<(), BlockError> {
        let _gate = self.gate.read().await;
        self.note_live(&blocks);
        self.store.put(blocks).await
    }

    /// Keeps blocks that nothing asked for: an import.
    pub(super) async fn put_imported(&self, blocks: Vec<Block>) -> Result<(), BlockError> {
        let _gate = self.gate.read().await;
        self.note_live(&blocks);
        {
            let mut recent = self.recent.lock();
            let now = Instant::now();
            for block in &blocks {
                recent.note(&block.cid.hash_bytes(), now);
            }
        }
        self.store.put(blocks).await
    }

    fn note_live(&self, blocks: &[Block]) {
        if let Some(live) = self.live.lock().as_mut() {
            for block in blocks {
                live.insert(&block.cid.hash_bytes());
            }
        }
    }

    /// Protects what is put from now on, until the guard goes and the grace after it is over.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.recent.lock().leases += 1;
        Lease { kept: Arc::clone(self) }
    }

    /// Protects what a fetch has brought so far, until the guard goes.
    pub(super) fn activate(&self, root: Root) -> ActiveRoot<'_> {
        let mut active = self.active.lock();
        let id = active.last_key_value().map_or(0, |(last, _)| last + 1);
        active.insert(id, root);
        ActiveRoot { kept: self, id }
    }

    /// The roots of running fetches.
    pub(super) fn active_roots(&self) -> Vec<Root> {
        self.active.lock().values().copied().collect()
    }

    /// Starts to collect live blocks; ends when the guard goes. The caller sees to it that there is one at a time.
    pub(super) fn begin_marking(&self, blocks: u64) -> Marking<'_> {
        *self.live.lock() = Some(Filter::for_blocks(blocks));
        Marking { kept: self }
    }
}

/// An import that is under way.
pub(super) struct Lease {
    kept: Arc<Kept>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut recent = self.kept.recent.lock();
        recent.leases -= 1;
        // The grace begins when the import ends.
        if recent.last_put.is_some() {
            recent.last_put = Some(Instant::now());
        }
    }
}

/// A running fetch's root.
pub(super) struct ActiveRoot<'a> {
    kept: &'a Kept,
    id: u64,
}

impl Drop for ActiveRoot<'_> {
    fn drop(&mut self) {
        self.kept.active.lock().remove(&self.id);
    }
}

/// A running collection.
pub(super) struct Marking<'a> {
    kept: &'a Kept,
}

impl Marking<'_> {
    /// Adds a block to those that stay.
    pub(super) fn mark(&self, multihash: &[u8]) {
        if let Some(live) = self.kept.live.lock().as_mut() {
            live.insert(multihash);
        }
    }

    /// Whether a block stays.
    pub(super) fn stays(&self, multihash: &[u8]) -> bool {
        self.kept.live.lock().as_ref().is_none_or(|live| live.contains(multihash))
            || self.kept.recent.lock().contains(multihash, Instant::now())
    }

    /// Nobody puts or touches a block while the guard lives.
    pub(super) async fn close_gate(&self) -> RwLockWriteGuard<'_, ()> {
        self.kept.gate.write().await
    }
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        *self.kept.live.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::unixfs::CidBuilder;
    use cluster_types::{Codec, PinDepth};
    use futures::FutureExt;

    use super::super::tests::mem::MemBlocks;
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn block(text: &'static str) -> Block {
        let data = Bytes::from_static(text.as_bytes());
        Block { cid: CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, &data), data }
    }

    fn kept(grace: Duration) -> Kept {
        Kept::new(Arc::new(MemBlocks::default()), grace)
    }

    #[tokio::test]
    async fn what_is_put_or_found_while_a_collection_marks_stays() {
        let kept = kept(Duration::ZERO);
        kept.put_imported(vec![block("found"), block("left")]).await.unwrap();
        let marking = kept.begin_marking(10);
        assert!(!marking.stays(&block("found").cid.hash_bytes()));
        assert_eq!(kept.touch(&block("found").cid.hash_bytes()).await.unwrap(), Some(5));
        kept.put_fetched(vec![block("fetched")]).await.unwrap();
        kept.put_imported(vec![block("imported")]).await.unwrap();
        for text in ["found", "fetched", "imported"] {
            assert!(marking.stays(&block(text).cid.hash_bytes()), "{text}");
        }
        assert!(!marking.stays(&block("left").cid.hash_bytes()));
        drop(marking);
        assert!(!kept.begin_marking(10).stays(&block("found").cid.hash_bytes()), "each run marks anew");
    }

    #[tokio::test]
    async fn nothing_is_put_or_found_while_a_batch_is_swept() {
        let kept = kept(Duration::ZERO);
        let marking = kept.begin_marking(10);
        let gate = marking.close_gate().await;
        let multihash = block("x").cid.hash_bytes();
        assert!(kept.touch(&multihash).now_or_never().is_none());
        assert!(kept.put_fetched(vec![block("x")]).now_or_never().is_none());
        assert!(kept.put_imported(vec![block("x")]).now_or_never().is_none());
        drop(gate);
        assert_eq!(kept.touch(&multihash).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_is_safe_while_it_goes_on_and_for_the_grace_after() {
        let kept = kept(GRACE);
        let first = block("first").cid.hash_bytes();
        kept.put_imported(vec![block("first")]).await.unwrap();
        for _ in 0..10 {
            tokio::time::advance(GRACE * 9 / 10).await;
            kept.put_imported(vec![block("next")]).await.unwrap();
        }
        tokio::time::advance(GRACE * 9 / 10).await;
        assert!(kept.begin_marking(10).stays(&first));
        tokio::time::advance(GRACE).await;
        assert!(!kept.begin_marking(10).stays(&first));
    }

    #[test]
    fn the_root_of_a_fetch_is_active_as_long_as_the_fetch() {
        let kept = kept(GRACE);
        let root = |text| Root { cid: block(text).cid, depth: PinDepth::RECURSIVE };
        let one = kept.activate(root("one"));
        let two = kept.activate(root("two"));
        drop(one);
        let three = kept.activate(root("three"));
        assert_eq!(kept.active_roots(), [root("two"), root("three")]);
        drop((two, three));
        assert_eq!(kept.active_roots(), []);
    }
}
