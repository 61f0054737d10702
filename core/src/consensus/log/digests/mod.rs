//! The digest watch: this peer's pinset is compared with those of the others, and with its own sums.
//!
//! Two things go wrong with a replica, and each is found in its own way. A peer that *applied* otherwise has another root
//! digest than the others at the same log index ([`compare`]). A record that was changed *behind its back* (a disk, a
//! tool) leaves the sums as they were, since they follow the log; so the records of each shard are added up again, one
//! shard after the other: quickly after the start, slowly ever after ([`audit`]). Either way the shard is then looked at
//! together with the voters ([`examine`]): what a majority of them holds is right, and where this peer holds something
//! else, it takes that over. Without a majority nothing is changed; people are told ([`findings`]).
//!
//! **Invariant:** a peer changes only itself, and only to what a majority of the voters holds at the same log index. Its
//! own sum counts as its vote: a peer whose records do not add up knows what they should add up to.
//! **Invariant:** of the pinset one shard is in memory at a time, and a copy of it for each different answer.

mod audit;
mod compare;
mod examine;
mod findings;
mod ledger;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{ErrorClass, WireError};
use tokio::time::sleep;

use super::engine::LogConsensus;
use super::state_machine::EffectAt;
use crate::catchup::encode_manifest;
use crate::ports::{Clock, Gossip};
use crate::task::TaskGroup;
use crate::watch;

pub use findings::{Cause, Finding, Outcome};
pub(super) use ledger::{Ledger, NOTE_EVERY};

/// How often an unresolved shard is looked at again.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// What the watch works with, beside the node.
pub(super) struct Parts {
    pub(super) node: Arc<LogConsensus>,
    pub(super) gossip: Arc<dyn Gossip>,
    pub(super) effect_at: EffectAt,
    pub(super) clock: Arc<dyn Clock>,
    /// Wakes whoever acts on what is shown.
    pub(super) applied: watch::Sender<u64>,
}

/// Starts the watch.
pub(super) fn start(parts: Parts, tasks: &TaskGroup) {
    let parts = Arc::new(parts);
    let [notes, listening, comparing, auditing, again] = [(); 5].map(|()| Arc::clone(&parts));
    tasks.spawn_until_stopped("digest notes", async move { compare::tell_others(&notes).await });
    tasks.spawn_until_stopped("digests of others", async move { compare::listen(&listening).await });
    tasks.spawn_until_stopped("digest comparison", async move { compare::run(&comparing).await });
    tasks.spawn_until_stopped("audit", async move { audit::run(&auditing).await });
    tasks.spawn_until_stopped("unresolved shards", async move {
        loop {
            sleep(RETRY_EVERY).await;
            for (shard, cause) in again.node.ledger.unresolved() {
                examine::examine(&again, shard, cause).await;
            }
        }
    });
}

impl LogConsensus {
    /// What the digest watch has found since the start, newest first.
    pub fn findings(&self) -> Vec<Finding> {
        self.ledger.findings()
    }

    /// What every shard was at a log index that this peer noted, encoded. For calls of other members.
    pub fn noted(&self, index: u64) -> Result<Bytes, WireError> {
        let note = self.ledger.note_at(index).ok_or_else(|| {
            WireError::new(ErrorClass::NotFound, format!("log index {index} is not among those noted last"))
        })?;
        Ok(encode_manifest(&note.manifest))
    }
}
