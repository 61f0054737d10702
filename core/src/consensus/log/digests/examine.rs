//! Looks at one shard together with the voters, and puts it right here if a majority holds something else.
//!
//! What a voter holds is asked of its records, all of the shard, as of the log index that this peer stands at: so a voter
//! whose own records were changed does not count for what it ought to hold. This peer's vote is its sum.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{Cid, ErrorChain, PeerId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::Parts;
use super::findings::{Cause, Finding, Outcome};
use crate::catchup::{Asked, ask_whole, read};
use crate::consensus::operation::decode_pin;
use crate::consensus::overlay::Settling;
use crate::crdt::{Records, shard};
use crate::ports::{Changes, LocalEffect, ShardState, ShardSum, StateError, StateView};

/// How long a voter may take to tell a shard, and then a learner. While this peer waits it applies nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Learners that are asked, all at once, for what no voter has.
const LEARNERS_ASKED: usize = 3;
/// Pause before a voter that has not applied the index yet, or is busy, is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a look at some shards gave.
pub(super) struct Read {
    pub(super) looked_at: u16,
    pub(super) bad: Vec<u16>,
}

/// What became of a look at a shard.
enum Verdict {
    /// It is as a majority has it.
    Sound,
    /// It was put right.
    Repaired(usize),
    /// It cannot be told, or not be put right.
    Unresolved(String),
}

/// Whether a record cannot be read at all.
pub(super) fn unreadable(error: &StateError) -> bool {
    matches!(error, StateError::Damaged { .. })
}

/// Looks at a shard that is suspected, and notes what was found.
pub(super) async fn examine(parts: &Parts, shard: u16, cause: Cause) {
    let node = &parts.node;
    if node.progress().borrow().is_some() {
        // What is being gathered replaces the state; the next round looks at it then.
        return;
    }
    let still = node.ledger.gate.lock().await;
    let index = *parts.applied.borrow();
    let verdict = judge(parts, shard, index).await;
    drop(still);
    let outcome = match verdict {
        Ok(Verdict::Sound) => return node.ledger.clear_shard(shard),
        Ok(Verdict::Repaired(records)) => Outcome::Repaired { records },
        Ok(Verdict::Unresolved(reason)) => Outcome::Unresolved { reason },
        Err(error) if unreadable(&error) => {
            Outcome::Unresolved { reason: format!("{}; let this peer join the others anew", ErrorChain(&error)) }
        }
        Err(error) => return tracing::debug!(error = %ErrorChain(&error), shard, "a shard could not be looked at"),
    };
    let repaired = matches!(outcome, Outcome::Repaired { .. });
    let finding = Finding { peer: node.peer, shard: Some(shard), index, cause, outcome, found_at: parts.clock.now() };
    let said = finding.to_string();
    if node.ledger.find(finding) {
        tracing::warn!(shard, index, finding = said, "this peer's pinset was not what it should be");
    }
    if repaired {
        // Whoever acts on pins looks at them again.
        parts.applied.send_modify(|_index| {});
    }
}

async fn judge(parts: &Parts, at: u16, index: u64) -> Result<Verdict, StateError> {
    let state = &parts.node.state;
    let (stored, held) =
        read(|look| state.read(look), move |view| Ok((view.shard(at)?.sum, shard::sum(view, at)?))).await?;
    let (voters, learners) = voters_and_learners(parts);
    let mut votes = Votes::new(voters.len());
    if voters.contains(&parts.node.peer) {
        votes.cast(stored, None);
    }
    let asked = voters.iter().filter(|peer| **peer != parts.node.peer);
    let mut answers: FuturesUnordered<_> = asked.map(|peer| ask(parts, *peer, index, at)).collect();
    loop {
        match votes.decided() {
            Some((sum, _)) if sum == stored && sum == held => return Ok(Verdict::Sound),
            Some((sum, Some(records))) => {
                let records = Arc::clone(records);
                return put_right(parts, at, index, (stored, sum), records).await.map(Verdict::Repaired);
            }
            // Only this peer's vote has said it so far.
            Some((_, None)) | None => {}
        }
        let Some(answer) = answers.next().await else { break };
        if let Some((sum, records)) = answer {
            votes.cast(sum, Some(records));
        }
    }
    if let Some((sum, None)) = votes.decided() {
        // It is known what is right, and no voter has it: a learner may.
        let mut answers: FuturesUnordered<_> = learners.into_iter().map(|peer| ask(parts, peer, index, at)).collect();
        while let Some(answer) = answers.next().await {
            if let Some((_, records)) = answer.filter(|(told, _)| *told == sum) {
                return put_right(parts, at, index, (stored, sum), records).await.map(Verdict::Repaired);
            }
        }
        return Ok(Verdict::Unresolved("no member that was asked holds what it should be".to_owned()));
    }
    let (cast, needed) = (votes.cast, votes.needed);
    let reason = format!("no {needed} voters hold the same ({cast} of {} were heard)", voters.len());
    Ok(Verdict::Unresolved(reason))
}

/// The voters, and some of the other members.
fn voters_and_learners(parts: &Parts) -> (BTreeSet<PeerId>, Vec<PeerId>) {
    let position = parts.node.position.borrow();
    let of =
        |voter: bool| position.members.iter().filter(move |member| member.voter == voter).map(|member| member.peer);
    let learners = of(false).filter(|peer| *peer != parts.node.peer).take(LEARNERS_ASKED).collect();
    (of(true).collect(), learners)
}

/// Asks a member for all records of a shard.
async fn ask(parts: &Parts, peer: PeerId, index: u64, shard: u16) -> Option<(ShardSum, Arc<Records>)> {
    let asking = async {
        loop {
            match ask_whole(&parts.node.client, peer, index, shard, ANSWER_TIMEOUT).await {
                Asked::Records(records) => return Some(records),
                Asked::Later => sleep(PAUSE).await,
                Asked::Never => return None,
            }
        }
    };
    let records = timeout(ANSWER_TIMEOUT, asking).await.ok().flatten()?;
    let mut sum = ShardSum::default();
    records.values().for_each(|record| sum.add_record(record));
    Some((sum, Arc::new(records)))
}

/// How many voters hold the same, and the records if somebody told them.
type Held = (usize, Option<Arc<Records>>);

/// What voters hold of a shard.
pub(super) struct Votes {
    needed: usize,
    cast: usize,
    by_sum: BTreeMap<(u64, [u8; 32]), Held>,
}

impl Votes {
    /// None yet, of so many voters.
    pub(super) fn new(voters: usize) -> Self {
        Self { needed: voters / 2 + 1, cast: 0, by_sum: BTreeMap::new() }
    }

    /// One more voter holds this.
    pub(super) fn cast(&mut self, sum: ShardSum, records: Option<Arc<Records>>) {
        self.cast += 1;
        let (votes, known) = self.by_sum.entry((sum.pins, sum.hash)).or_default();
        *votes += 1;
        if known.is_none() {
            *known = records;
        }
    }

    /// What a majority holds, and the records if somebody told them.
    pub(super) fn decided(&self) -> Option<(ShardSum, Option<&Arc<Records>>)> {
        let (sum, (_, records)) = self.by_sum.iter().find(|(_, (votes, _))| *votes >= self.needed)?;
        Some((ShardSum { pins: sum.0, hash: sum.1 }, records.as_ref()))
    }
}

/// Makes the shard what it should be; returns how many records that changed.
async fn put_right(
    parts: &Parts,
    at: u16,
    index: u64,
    (stored, sum): (ShardSum, ShardSum),
    records: Arc<Records>,
) -> Result<usize, StateError> {
    let effect = (parts.effect_at)(index);
    let (tell, told) = tokio::sync::oneshot::channel();
    let update = move |view: &dyn StateView| {
        if view.shard(at)?.sum != stored {
            return Err(StateError::InvalidSnapshot { what: "the shard has moved since".to_owned() });
        }
        let (number, changes) = repair(view, at, index, sum, &records, &effect)?;
        // Nobody waits any more: the peer is stopping.
        let _stopping = tell.send(number);
        Ok(changes)
    };
    parts.node.state.update(Box::new(update)).await?;
    told.await.map_err(|_gone| StateError::Closed)
}

/// What makes a shard, which stands at `index`, consist of `records`.
fn repair(
    view: &dyn StateView,
    at: u16,
    index: u64,
    sum: ShardSum,
    records: &Records,
    effect: &LocalEffect,
) -> Result<(usize, Changes), StateError> {
    let (present, before) = (shard::records(view, at)?, view.shard(at)?);
    let cids: BTreeSet<&Cid> = present.keys().chain(records.keys()).collect();
    let mut changes = Changes::default();
    let mut number = 0;
    for cid in cids.into_iter().filter(|cid| present.get(cid) != records.get(cid)) {
        let mut settling = Settling::of(view, cid)?;
        let right = records.get(cid).map(|record| decode_pin(record)).transpose();
        settling.committed = right.map_err(|error| StateError::InvalidSnapshot { what: error.to_string() })?;
        settling.settle(view, index, effect, &mut changes)?;
        number += 1;
    }
    // The tail may tell of records as they were when they were wrong.
    changes.shards.push((at, ShardState { sum, tail_from: index, ..before }));
    changes.drop_tail.push((at, index));
    changes.pins_counted = Some((before.sum.pins, sum.pins));
    Ok((number, changes))
}

#[cfg(test)]
mod tests {
    use cluster_types::Timestamp;

    use super::*;
    use crate::consensus::digest::shard_of;
    use crate::consensus::operation::encode_pin;
    use crate::consensus::overlay;
    use crate::crdt::merge::{Eventual, Sight, Write};
    use crate::ports::{OutboxChange, OutboxStore, StateStore};
    use crate::testing::MemState;
    use crate::testing::suite::pinset::{cid, peer, pin_on, put};

    fn sum(pins: u64) -> ShardSum {
        ShardSum { pins, hash: [0; 32] }
    }

    #[test]
    fn only_a_majority_decides() {
        let records = || Some(Arc::new(Records::new()));
        let mut votes = Votes::new(3);
        votes.cast(sum(1), None);
        assert!(votes.decided().is_none());
        votes.cast(sum(2), records());
        assert!(votes.decided().is_none());
        votes.cast(sum(2), records());
        assert!(matches!(votes.decided(), Some((decided, Some(_))) if decided == sum(2)));

        let mut votes = Votes::new(2);
        votes.cast(sum(1), None);
        votes.cast(sum(2), records());
        assert!(votes.decided().is_none(), "one against one");
        let mut votes = Votes::new(1);
        votes.cast(sum(1), None);
        assert!(matches!(votes.decided(), Some((_, None))), "alone it knows, and has nobody to take it from");
    }

    #[tokio::test]
    async fn a_repair_goes_beneath_writes_that_wait() {
        let state = MemState::new();
        let effect: LocalEffect = Arc::new(|_, _, _| None);
        put(&state, vec![pin_on(1, &[1])], "log").await;
        let time = Timestamp::from_unix_seconds(1_900_000_000);
        let write = Write::by(peer(2), time, cid(1), None, Sight::of_state(5, None)).pin(pin_on(1, &[2]));
        let put = OutboxChange::Put { write: Box::new(Eventual::new(write).unwrap()), own: true };
        let comes = Changes { outbox: vec![put], ..Changes::default() };
        state.update(Box::new(move |_view| Ok(comes))).await.unwrap();
        let raised = Arc::clone(&effect);
        state.update(Box::new(move |view| overlay::raise(view, [cid(1)], 5, &raised))).await.unwrap();
        let shown = state.pin(cid(1)).await.unwrap().unwrap();
        assert_eq!(shown.allocations, [peer(2)]);

        let right = pin_on(1, &[3]);
        let records = Records::from([(cid(1), encode_pin(&right).into())]);
        let mut sum = ShardSum::default();
        sum.add(&right);
        let update = move |view: &dyn StateView| {
            let (number, changes) = repair(view, shard_of(&cid(1)), 5, sum, &records, &effect)?;
            assert_eq!(number, 1);
            Ok(changes)
        };
        state.update(Box::new(update)).await.unwrap();
        assert_eq!(state.pin(cid(1)).await.unwrap(), Some(shown), "it is shown as before");
        let beneath = |view: &dyn StateView| Ok((view.pin(&cid(1))?, view.shard(shard_of(&cid(1)))?.sum));
        assert_eq!(read(|look| state.read(look), beneath).await.unwrap(), (Some(right), sum));
        assert_eq!(state.waiting_count().own, 1);
    }
}
