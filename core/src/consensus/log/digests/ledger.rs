//! What this peer was at some log indexes, what the others say they were, and what was found.
//!
//! **Invariant:** a few notes are kept, each of some 200 KiB; of each member as many roots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use cluster_types::PeerId;
use parking_lot::Mutex;

use super::findings::{Cause, Finding, Findings};
use crate::crdt::manifest::Manifest;
use crate::ports::{StateError, StateStore};
use crate::watch;

/// Log indexes that every peer notes: the multiples of this.
pub(in super::super) const NOTE_EVERY: u64 = 1024;
/// Notes that are kept, and roots of each member: those of the last 8,192 entries, while writes come in.
const KEPT: usize = 8;

/// The pinset at a log index.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) index: u64,
    /// Without an applied position.
    pub(super) manifest: Arc<Manifest>,
}

/// A root digest and the log index as of which it is.
pub(super) type Rooted = (u64, [u8; 32]);

/// Notes, roots of others, findings.
pub(in super::super) struct Ledger {
    /// Held while entries are applied or a snapshot is installed, and by whoever needs the state to stand still.
    pub(in super::super) gate: tokio::sync::Mutex<()>,
    notes: Mutex<VecDeque<Note>>,
    heard: Mutex<BTreeMap<PeerId, VecDeque<Rooted>>>,
    findings: Mutex<Findings>,
    /// The index noted last.
    pub(super) noted: watch::Sender<u64>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    pub(in super::super) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: tokio::sync::Mutex::new(()),
            notes: Mutex::default(),
            heard: Mutex::default(),
            findings: Mutex::default(),
            noted: watch::Sender::new(0),
        })
    }

    /// Notes what the state is, which stands still at `index`.
    pub(in super::super) async fn note(&self, state: &dyn StateStore, index: u64) -> Result<(), StateError> {
        let (shards, _applied) = state.shards().await?;
        let manifest = Manifest::of(bytes::Bytes::new(), &shards);
        let manifest = manifest.map_err(|error| StateError::Damaged { what: error.to_string() })?;
        let mut notes = self.notes.lock();
        notes.retain(|note| note.index != index);
        notes.push_front(Note { index, manifest: Arc::new(manifest) });
        notes.truncate(KEPT);
        drop(notes);
        self.noted.send_replace(index);
        Ok(())
    }

    /// What was noted at an index.
    pub(super) fn note_at(&self, index: u64) -> Option<Note> {
        self.notes.lock().iter().find(|note| note.index == index).cloned()
    }

    /// All notes, newest first.
    pub(super) fn notes(&self) -> Vec<Note> {
        self.notes.lock().iter().cloned().collect()
    }

    /// Whether an index is the one noted last.
    pub(super) fn is_noted(&self, index: u64) -> bool {
        self.notes.lock().front().is_some_and(|note| note.index == index)
    }

    /// A member says what its root was.
    pub(super) fn hear(&self, from: PeerId, rooted: Rooted) {
        let mut heard = self.heard.lock();
        let roots = heard.entry(from).or_default();
        // It may have noted the same index twice, before and after a repair: the newer word counts.
        roots.retain(|(index, _)| *index != rooted.0);
        roots.push_front(rooted);
        roots.truncate(KEPT);
    }

    /// Forgets what others than `members` said.
    pub(super) fn forget_others(&self, members: &BTreeSet<PeerId>) {
        self.heard.lock().retain(|peer, _| members.contains(peer));
    }

    /// What the members said of an index.
    pub(super) fn heard_at(&self, index: u64) -> Vec<(PeerId, [u8; 32])> {
        let heard = self.heard.lock();
        let at = |roots: &VecDeque<Rooted>| roots.iter().find(|(of, _)| *of == index).map(|(_, root)| *root);
        heard.iter().filter_map(|(peer, roots)| at(roots).map(|root| (*peer, root))).collect()
    }

    /// Keeps a finding; tells whether it says something new.
    pub(super) fn find(&self, finding: Finding) -> bool {
        self.findings.lock().put(finding)
    }

    /// A shard is as it should be.
    pub(super) fn clear_shard(&self, shard: u16) {
        self.findings.lock().clear_shard(shard);
    }

    /// Another member agrees again.
    pub(super) fn clear_peer(&self, peer: &PeerId) {
        self.findings.lock().clear_peer(peer);
    }

    /// Shards that are not as they should be, and could not be repaired yet.
    pub(super) fn unresolved(&self) -> Vec<(u16, Cause)> {
        self.findings.lock().unresolved()
    }

    /// What was found, newest first.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.findings.lock().all()
    }
}
