//! Passes eventual writes on: to the members on this side of a cut, and to the log once a leader is back.
//!
//! A peer tells by gossip how many writes it has accepted; whoever knows fewer asks it for the rest. So a lost message
//! costs time, never a write, and a write crosses each connection once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{BoxError, ErrorChain, ErrorClass, PeerId, WireError};
use tokio::time::Instant;

use super::authors::Authors;
use super::engine::LogConsensus;
use super::outbox;
use crate::broadcast::OutboxNote;
use crate::consensus::{Consensus, ConsensusError};
use crate::crdt::merge::Eventual;
use crate::ports::{Gossip, Topic, Waiting};
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::{OnExit, TaskGroup};

/// How often a peer repeats how many writes it has accepted, while some of them wait.
const REPEAT_EVERY: Duration = Duration::from_secs(3);
/// The least time between two notes.
const NOTE_PAUSE: Duration = Duration::from_millis(50);
/// How long a member may take to send some writes.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of writes in one merge; the sequencer refuses twice as many.
const MAX_MERGE_BYTES: usize = 128 * 1024;
/// How long a merge may take before it is tried again.
const MERGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a merge that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Starts to pass writes on.
pub(super) fn start(node: &Arc<LogConsensus>, gossip: Arc<dyn Gossip>, tasks: &TaskGroup) {
    let [deliver, note, listen] = [(); 3].map(|()| Arc::clone(node));
    let authors = Arc::new(Authors::default());
    let speakers = Arc::clone(&authors);
    tasks.spawn_until_stopped("merging", async move { deliver_all(&deliver, &authors).await });
    let publisher = Arc::clone(&gossip);
    tasks.spawn_until_stopped("outbox notes", async move { tell_others(&note, publisher.as_ref()).await });
    let group = tasks.clone();
    tasks.spawn_until_stopped("outbox of others", async move {
        listen_to_others(&listen, gossip.as_ref(), &speakers, &group).await
    });
}

/// Tells how many writes this peer has accepted, when there is a new one and again while any waits.
async fn tell_others(node: &LogConsensus, gossip: &dyn Gossip) {
    let mut came_in = node.outbox.came_in.subscribe();
    loop {
        if node.outbox_count().own > 0 {
            let note = OutboxNote { last: node.outbox.last_own() };
            if let Err(error) = gossip.publish(Topic::Log, note.seal()).await {
                tracing::debug!(%error, "eventual writes could not be announced");
            }
        }
        tokio::time::sleep(NOTE_PAUSE).await;
        // Whether it came in or the time is over, the count decides.
        drop(tokio::time::timeout(REPEAT_EVERY, came_in.changed()).await);
    }
}

/// Asks members for the writes they announce.
async fn listen_to_others(node: &Arc<LogConsensus>, gossip: &dyn Gossip, authors: &Authors, tasks: &TaskGroup) {
    let mut notes = gossip.subscribe(Topic::Log);
    let known: Arc<parking_lot::Mutex<BTreeMap<PeerId, Known>>> = Arc::default();
    loop {
        let message = match notes.recv().await {
            Ok(message) => message,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return std::future::pending().await,
        };
        let Some(OutboxNote { last }) = OutboxNote::open(&message.data) else { continue };
        let from = message.from;
        if !node.is_member(&from) {
            continue;
        }
        authors.heard(from, Instant::now());
        let node_id = node.position().borrow().members.iter().find(|member| member.peer == from).map(|m| m.node_id);
        if !known.lock().entry(from).or_default().hear(node_id, last) {
            continue;
        }
        let (node, known, stop) = (Arc::clone(node), Arc::clone(&known), tasks.stop_token());
        tasks.spawn("eventual writes of a member", OnExit::Continue, async move {
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                asked = ask_for_rest(&node, from, &known) => asked,
            };
            if let Some(known) = known.lock().get_mut(&from) {
                known.asking = false;
            }
            if let Err(error) = asked {
                tracing::debug!(peer = %from, %error, "eventual writes could not be fetched; the next note brings them");
            }
            Ok::<(), BoxError>(())
        });
    }
}

/// What is known of a member's outbox.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Its raft id, as long as it is known: another one belongs to another disk.
    node_id: Option<u64>,
    announced: u64,
    taken: u64,
    asking: bool,
}

impl Known {
    /// It announces writes up to `last`. Says whether it is to be asked for some, and takes that as under way.
    fn hear(&mut self, node_id: Option<u64>, last: u64) -> bool {
        let replaced = node_id.is_some() && self.node_id.is_some() && node_id != self.node_id;
        self.node_id = node_id.or(self.node_id);
        // A peer whose disk was replaced counts anew.
        if replaced || last < self.taken {
            self.taken = 0;
        }
        self.announced = last;
        let ask = !self.asking && self.taken < last;
        self.asking |= ask;
        ask
    }
}

async fn ask_for_rest(
    node: &LogConsensus,
    from: PeerId,
    known: &parking_lot::Mutex<BTreeMap<PeerId, Known>>,
) -> Result<(), WireError> {
    loop {
        let Known { announced, taken, .. } = known.lock().get(&from).copied().unwrap_or_default();
        if taken >= announced {
            return Ok(());
        }
        let Reply::Outbox { writes, up_to } =
            node.client.ask(from, &Call::Outbox { after: taken }, ASK_TIMEOUT).await?
        else {
            return Err(PeerClient::misfit(from));
        };
        if up_to <= taken {
            return Err(PeerClient::misfit(from));
        }
        let writes = writes.iter().map(|bytes| Eventual::decode(bytes)).collect::<Result<Vec<_>, _>>();
        let writes = writes.map_err(|error| WireError::from_error(error.class(), &error))?;
        node.outbox.take_over(writes, node.member_peers()).await.map_err(|error| outbox::to_wire(&error))?;
        if let Some(known) = known.lock().get_mut(&from) {
            known.taken = up_to;
        }
    }
}

impl LogConsensus {
    /// Writes that this peer accepted and that wait, from behind the number `after`. For calls of other members.
    pub async fn outbox_page(&self, after: u64) -> Result<Reply, WireError> {
        let page = self.outbox.page(after).await.map_err(|error| outbox::to_wire(&error))?;
        let last = page.last().map(|waiting| waiting.number);
        // Behind the last page there is nothing that waits; what was announced has been merged.
        let up_to = last.unwrap_or_else(|| self.outbox.last_own().max(after));
        let own = page.into_iter().filter(|waiting| waiting.own);
        Ok(Reply::Outbox { writes: own.map(|waiting| Bytes::from(waiting.write.encode())).collect(), up_to })
    }
}

/// Brings what waits into the log, for as long as there is a leader.
async fn deliver_all(node: &LogConsensus, authors: &Authors) {
    let mut came_in = node.outbox.came_in.subscribe();
    let mut position = node.position();
    loop {
        if node.outbox.is_empty() {
            drop(tokio::time::timeout(REPEAT_EVERY, came_in.changed()).await);
            continue;
        }
        if position.wait_for(|position| position.leader.is_some() && !position.removed).await.is_err() {
            return std::future::pending().await;
        }
        if node.leader().is_none() {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        let last_own = node.outbox.last_own();
        match deliver_once(node, authors).await {
            Ok(true) => {}
            Ok(false) if node.outbox_count().own == 0 => {
                // The rest is left to its authors: it is not walked again at once, unless there is a new one of its own.
                let new = came_in.wait_for(|last| *last > last_own);
                drop(tokio::time::timeout(REPEAT_EVERY, new).await);
            }
            Ok(false) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "eventual writes wait for a quorum");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Goes through the outbox once. Says whether there was anything to bring.
async fn deliver_once(node: &LogConsensus, authors: &Authors) -> Result<bool, ConsensusError> {
    let stopped = |error: &dyn std::error::Error| ConsensusError::Stopped { reason: error.to_string() };
    let (mut after, mut brought, walk) = (0, false, Instant::now());
    loop {
        let page = node.outbox.page(after).await.map_err(|error| stopped(&error))?;
        let Some(last) = page.last() else { return Ok(brought) };
        after = last.number;
        let is_ours =
            |waiting: &Waiting| waiting.own || authors.leaves_to_others(waiting.write.author, waiting.number, walk);
        for writes in batches(page.into_iter().filter(is_ours)) {
            brought |= bring(writes, |writes| node.merge(writes, MERGE_TIMEOUT)).await?;
        }
    }
}

/// Has writes merged. What the leader refuses is tried in halves, so that one bad write keeps back no other; it stays
/// where it is and is tried again later. Says whether anything was merged.
async fn bring<M>(writes: Vec<Eventual>, merge: impl Fn(Vec<Eventual>) -> M) -> Result<bool, ConsensusError>
where
    M: Future<Output = Result<Result<u64, WireError>, ConsensusError>>,
{
    let (mut rest, mut brought) = (vec![writes], false);
    while let Some(mut writes) = rest.pop() {
        let number = writes.len();
        match merge(writes.clone()).await? {
            Ok(index) => {
                tracing::info!(writes = number, index, "writes that were accepted without a quorum are merged");
                brought = true;
            }
            Err(refusal) if number <= 1 => {
                let cid = writes.first().map(|write| write.cid);
                tracing::error!(?cid, %refusal, "the leader cannot merge a write; it is tried again");
            }
            Err(_) => {
                rest.push(writes.split_off(number / 2));
                rest.push(writes);
            }
        }
    }
    Ok(brought)
}

/// Cuts writes into merges.
fn batches(waiting: impl Iterator<Item = Waiting>) -> Vec<Vec<Eventual>> {
    let (mut batches, mut bytes) = (Vec::new(), usize::MAX);
    for Waiting { write, .. } in waiting {
        let length = write.encode().len();
        if bytes.saturating_add(length) > MAX_MERGE_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(batch) = batches.last_mut() {
            batch.push(write);
        }
    }
    batches
}

/// A failure to accept, as the caller of a write hears of it.
pub(super) fn refused(error: &crate::ports::StateError) -> ConsensusError {
    match error.class() {
        ErrorClass::Fatal => ConsensusError::Stopped { reason: error.to_string() },
        ErrorClass::Invalid
        | ErrorClass::Malformed
        | ErrorClass::NotFound
        | ErrorClass::Conflict
        | ErrorClass::Unavailable
        | ErrorClass::Unknown => ConsensusError::NoQuorum { reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::{Pin, PinOptions, Timestamp};

    use super::*;
    use crate::crdt::merge::Write;
    use crate::tracker::fakes::cid;

    #[test]
    fn a_replaced_disk_counts_anew_also_when_it_has_more_than_the_old_one() {
        let mut known = Known::default();
        let mut hear = |node_id, last| {
            let asked = known.hear(node_id, last);
            if asked {
                (known.asking, known.taken) = (false, last);
            }
            asked
        };
        assert!(hear(None, 2), "not in the membership yet");
        assert!(hear(Some(1), 3) && !hear(Some(1), 3));
        assert!(hear(Some(1), 2), "fewer than were taken");
        assert!(hear(Some(2), 2), "as many, of another disk");
        assert!(!hear(None, 2) && !hear(Some(2), 2));
    }

    #[tokio::test]
    async fn a_write_that_cannot_be_merged_keeps_back_no_other() {
        let write = |number: u32| {
            let options =
                PinOptions { replication_factor_min: -1, replication_factor_max: -1, ..PinOptions::default() };
            let pin = Pin::new(cid(number), options);
            Eventual::new(Write::join(PeerId::random(), Timestamp::from_unix_seconds(1), pin)).unwrap()
        };
        let writes: Vec<Eventual> = (0..9).map(write).collect();
        let bad = writes[3].cid;
        let merged = parking_lot::Mutex::new(Vec::new());
        let merge = async |writes: Vec<Eventual>| {
            if writes.iter().any(|write| write.cid == bad) {
                return Ok(Err(WireError::new(ErrorClass::Fatal, "damaged")));
            }
            merged.lock().extend(writes.into_iter().map(|write| write.cid));
            Ok(Ok(1))
        };
        assert!(bring(writes.clone(), merge).await.unwrap());
        let wanted: Vec<_> = writes.iter().map(|write| write.cid).filter(|cid| *cid != bad).collect();
        assert_eq!(*merged.lock(), wanted);
        assert!(!bring(vec![writes[3].clone()], merge).await.unwrap(), "nothing to be in a hurry for");
    }
}
