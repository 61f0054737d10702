//! Brings a follower's state to that of a trusted peer, shard by shard.
//!
//! A trusted peer says what every shard is ([`crate::catchup`]); the shards that differ are pulled from whoever is
//! connected, for what comes is checked against that word, and put in place together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{ErrorChain, PeerId};

use super::{CatchUp, CatchUpError, Trust};
use crate::catchup::{Gather, Gathered, Kept, Pull, PullError, Stage, decode_manifest};
use crate::consensus::digest::root;
use crate::consensus::log::{AppliedPosition, EffectAt};
use crate::crdt::Records;
use crate::crdt::manifest::Manifest;
use crate::ports::{ShardState, StateError, StateStore, Transport};
use crate::rpc::{Call, PeerClient, Reply};

/// How long a peer may take to say what every shard is.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Pulls what differs from connected peers.
pub struct PullFromPeers {
    state: Arc<dyn StateStore>,
    effect_at: EffectAt,
    transport: Arc<dyn Transport>,
    client: PeerClient,
    trust: Trust,
    /// Who is asked first; another one each time.
    turn: AtomicUsize,
}

impl fmt::Debug for PullFromPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullFromPeers").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl PullFromPeers {
    /// Brings `state` to what those have who are included in `trust`.
    pub fn new(state: Arc<dyn StateStore>, effect_at: EffectAt, transport: Arc<dyn Transport>, trust: Trust) -> Self {
        let client = PeerClient::new(Arc::clone(&transport));
        // Followers that start together ask different peers first.
        let turn = AtomicUsize::new(transport.local_peer().to_bytes().last().copied().unwrap_or_default().into());
        Self { state, effect_at, transport, client, trust, turn }
    }

    /// What every shard is with a trusted peer, as it came and read.
    async fn manifest(&self, at_least: u64) -> Result<(Bytes, Manifest), CatchUpError> {
        let mut peers: Vec<PeerId> =
            self.transport.connected().into_iter().filter(|peer| self.trust.includes(peer)).collect();
        let mut reason = "none is connected".to_owned();
        if !peers.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % peers.len();
            peers.rotate_left(turn);
        }
        for peer in peers {
            match self.client.ask(peer, &Call::Manifest { at_least }, MANIFEST_TIMEOUT).await {
                Ok(Reply::Manifest { manifest, .. }) => match decode_manifest(&manifest) {
                    Ok(decoded) => return Ok((manifest, decoded)),
                    Err(error) => reason = format!("{peer}: {}", ErrorChain(&error)),
                },
                Ok(_) => reason = PeerClient::misfit(peer).message,
                Err(error) => reason = format!("{peer}: {}", error.message),
            }
        }
        Err(CatchUpError::Nobody { reason })
    }

    /// Has everything staged that differs from the state.
    async fn gather(&self, manifest: &Manifest, index: u64, own_index: u64, doubt: bool) -> Result<(), CatchUpError> {
        let stage = Stage::new(self.state.as_ref(), manifest, index, own_index);
        let (missing, differing) = stage.missing().await?;
        if !missing.is_empty() {
            tracing::info!(index, own_index, shards = missing.len(), of = differing, "catching up by shards");
        }
        let anew = Anew(&stage);
        let gather: &dyn Gather = if doubt { &anew } else { &stage };
        // Their word is checked shard by shard, so they need not be trusted.
        let donors = || self.transport.connected();
        let came = |_shards, _bytes| {};
        let pull = Pull { client: &self.client, index, manifest, donors: &donors, spare: None, gather, came: &came };
        pull.run(&missing).await.map_err(|error| match error {
            PullError::Store(error) => CatchUpError::Store(error),
            nobody @ PullError::NobodyServes { .. } => CatchUpError::Nobody { reason: ErrorChain(&nobody).to_string() },
        })?;
        Ok(stage.verify().await?)
    }
}

#[async_trait]
impl CatchUp for PullFromPeers {
    async fn catch_up(&self, at_least: u64, doubt: bool) -> Result<(), CatchUpError> {
        let (encoded, manifest) = self.manifest(at_least).await?;
        let nonsense = |error: StateError| CatchUpError::Nobody { reason: ErrorChain(&error).to_string() };
        let target = AppliedPosition::decode(Some(manifest.applied())).map_err(nonsense)?;
        let index = target.index();
        if target.last.is_none() || index < at_least {
            return Err(CatchUpError::Nobody { reason: "what came is older than what is here".to_owned() });
        }
        let (shards, applied) = self.state.shards().await?;
        let own = AppliedPosition::decode(applied.as_ref())?;
        if own.last == target.last && root_of(&shards) == manifest.root() {
            return Ok(());
        }
        self.state.stage(index, encoded).await?;
        // What is remembered of requests and merges is not asked for. An entry that is judged by it leads to other shards
        // here, which is noticed, and its shards are brought again.
        self.state.stage_annex(Vec::new(), true).await?;
        self.gather(&manifest, index, own.index(), doubt).await?;
        Ok(self.state.install_staged((self.effect_at)(index)).await?)
    }
}

fn root_of(shards: &[ShardState]) -> [u8; 32] {
    root(shards.iter().map(|shard| &shard.sum))
}

/// Brings shards here without building on what the state has of them.
struct Anew<'a, G>(&'a G);

#[async_trait]
impl<G: Gather> Gather for Anew<'_, G> {
    async fn base(&self, _shard: u16) -> Result<Option<u64>, StateError> {
        Ok(None)
    }

    async fn records(&self, shard: u16) -> Result<Records, StateError> {
        self.0.records(shard).await
    }

    async fn keep(&self, shard: u16, what: Gathered) -> Result<Kept, StateError> {
        self.0.keep(shard, what).await
    }
}
