//! Tells the others this peer's root digest, and compares theirs at the same log index.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_types::{ErrorChain, PeerId};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::Parts;
use super::examine::examine;
use super::findings::{Cause, Finding, Outcome};
use super::ledger::Note;
use crate::broadcast::DigestNote;
use crate::catchup::decode_manifest;
use crate::crdt::manifest::Manifest;
use crate::ports::Topic;
use crate::rpc::{Call, Reply};

/// A peer that has applied nothing for so long notes where it stands: the others stand there too, or soon.
const IDLE: Duration = Duration::from_secs(3);
/// How often the last root is told again, for those that missed it or came since.
const REPEAT_EVERY: Duration = Duration::from_secs(20);
/// How often roots are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How long a member may take to tell what its shards were.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Notes and tells the root: of the indexes that everybody notes, and of where this peer rests.
pub(super) async fn tell_others(parts: &Parts) {
    let ledger = &parts.node.ledger;
    let mut applied = parts.applied.subscribe();
    let mut noted = ledger.noted.subscribe();
    let mut quiet = Duration::ZERO;
    let mut told = 0;
    loop {
        let before = *applied.borrow_and_update();
        // Whether a note came or the time is over, what is noted decides.
        drop(timeout(IDLE, noted.changed()).await);
        let index = *applied.borrow();
        if index == before && index > 0 && !ledger.is_noted(index) {
            note_here(parts).await;
        }
        quiet += IDLE;
        if let Some(note) = ledger.notes().first()
            && (note.index != told || quiet >= REPEAT_EVERY)
        {
            (told, quiet) = (note.index, Duration::ZERO);
            let message = DigestNote { index: note.index, root: note.manifest.root() };
            if let Err(error) = parts.gossip.publish(Topic::Log, message.seal()).await {
                tracing::debug!(%error, "the digest could not be told");
            }
        }
    }
}

/// Notes what the state is where it stands.
async fn note_here(parts: &Parts) {
    let ledger = &parts.node.ledger;
    let _still = ledger.gate.lock().await;
    let index = *parts.applied.borrow();
    if let Err(error) = ledger.note(parts.node.state.as_ref(), index).await {
        tracing::debug!(error = %ErrorChain(&error), "the digest could not be noted");
    }
}

/// Hears what members say their roots were.
pub(super) async fn listen(parts: &Parts) {
    let mut messages = parts.gossip.subscribe(Topic::Log);
    loop {
        let message = match messages.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        if let Some(DigestNote { index, root }) = DigestNote::open(&message.data)
            && parts.node.is_member(&message.from)
        {
            parts.node.ledger.hear(message.from, (index, root));
        }
    }
}

/// Compares for ever.
pub(super) async fn run(parts: &Parts) {
    let mut located = 0;
    loop {
        sleep(COMPARE_EVERY).await;
        let (members, voters) = {
            let position = parts.node.position.borrow();
            let voters: BTreeSet<PeerId> =
                position.members.iter().filter(|member| member.voter).map(|member| member.peer).collect();
            (position.members.iter().map(|member| member.peer).collect(), voters)
        };
        parts.node.ledger.forget_others(&members);
        // Of each member what it said last counts: what it was before a repair is past.
        let mut seen = BTreeSet::new();
        for note in parts.node.ledger.notes() {
            let heard = parts.node.ledger.heard_at(note.index);
            let standing = standing(&voters, parts.node.peer, note.manifest.root(), &heard);
            let differing: Vec<PeerId> = standing.differing.into_iter().filter(|peer| !seen.contains(peer)).collect();
            for (peer, _) in heard {
                if !differing.contains(&peer) && seen.insert(peer) {
                    parts.node.ledger.clear_peer(&peer);
                }
            }
            seen.extend(differing.iter().copied());
            if standing.majority {
                tell_of(parts, note.index, &differing);
            } else if !differing.is_empty() && note.index > located && look_into(parts, &note, &differing).await {
                located = note.index;
            }
        }
    }
}

/// Where a peer stands at a log index.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    /// Whether a majority of the voters is known to agree with it.
    majority: bool,
    /// Who does not: those first with whom most agree.
    differing: Vec<PeerId>,
}

fn standing(voters: &BTreeSet<PeerId>, own: PeerId, root: [u8; 32], heard: &[(PeerId, [u8; 32])]) -> Standing {
    let votes = |wanted: [u8; 32]| {
        let others = heard.iter().filter(|(peer, root)| *root == wanted && *peer != own && voters.contains(peer));
        others.count() + usize::from(wanted == root && voters.contains(&own))
    };
    let mut differing: Vec<(PeerId, [u8; 32])> = heard.iter().filter(|(_, other)| *other != root).copied().collect();
    differing.sort_by_key(|(peer, other)| (std::cmp::Reverse(votes(*other)), *peer));
    let majority = votes(root) > voters.len() / 2;
    Standing { majority, differing: differing.into_iter().map(|(peer, _)| peer).collect() }
}

/// Others are to repair themselves; people hear of it.
fn tell_of(parts: &Parts, index: u64, others: &[PeerId]) {
    for peer in others {
        let (cause, outcome, found_at) = (Cause::Differs, Outcome::Theirs, parts.clock.now());
        if parts.node.ledger.find(Finding { peer: *peer, shard: None, index, cause, outcome, found_at }) {
            tracing::warn!(%peer, index, "a member's digest differs from that of the majority");
        }
    }
}

/// Finds the shards that differ from those of one of `peers`, and looks at each. Tells whether somebody answered.
async fn look_into(parts: &Parts, note: &Note, peers: &[PeerId]) -> bool {
    for peer in peers {
        let Some(theirs) = ask(parts, *peer, note.index).await else { continue };
        let shards = note.manifest.differing_from(&theirs);
        tracing::info!(%peer, index = note.index, shards = shards.len(), "the digest differs from that of another member");
        for shard in shards {
            examine(parts, shard, Cause::Differs).await;
        }
        note_here(parts).await;
        return true;
    }
    false
}

async fn ask(parts: &Parts, peer: PeerId, index: u64) -> Option<Manifest> {
    match parts.node.client.ask(peer, &Call::Noted { index }, ASK_TIMEOUT).await {
        Ok(Reply::Manifest { index: of, manifest }) if of == index => decode_manifest(&manifest).ok(),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%peer, %error, "a member does not tell what its shards were");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_knows_whether_a_majority_is_with_it() {
        let peers: Vec<PeerId> = (0..5).map(|_| PeerId::random()).collect();
        let voters: BTreeSet<PeerId> = peers[..3].iter().copied().collect();
        let (one, other) = ([1; 32], [2; 32]);
        let at = |own: usize, heard: &[(usize, [u8; 32])]| {
            let heard: Vec<_> = heard.iter().map(|(peer, root)| (peers[*peer], *root)).collect();
            standing(&voters, peers[own], one, &heard)
        };
        let told = |majority, differing: &[usize]| {
            let differing = differing.iter().map(|peer| peers[*peer]).collect();
            Standing { majority, differing }
        };
        assert_eq!(at(0, &[]), told(false, &[]));
        assert_eq!(at(0, &[(1, one), (2, one), (3, one)]), told(true, &[]));
        assert_eq!(at(0, &[(1, one), (2, other)]), told(true, &[2]));
        assert_eq!(at(0, &[(2, other)]), told(false, &[2]), "one against one");
        assert_eq!(at(3, &[(0, one), (1, one), (4, other)]), told(true, &[4]), "learners have no vote");
        assert_eq!(at(3, &[(0, one), (3, one), (1, other)]), told(false, &[1]));
        assert_eq!(at(0, &[(3, [3; 32]), (1, other), (2, other)]).differing[2], peers[3]);
    }
}
