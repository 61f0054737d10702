//! Adds up the records of every shard again, and compares with the sums that follow the log.
//!
//! The first round begins at once after the start, since that is when a record may have been changed behind this peer's
//! back; it takes a minute, or as long as a fifth of a core's time needs. After that a round takes a day.

use std::time::Duration;

use cluster_types::ErrorChain;
use tokio::time::{Instant, sleep};

use super::Parts;
use super::examine::{Read, examine, unreadable};
use super::findings::Cause;
use crate::catchup::read;
use crate::consensus::digest::SHARDS;
use crate::crdt::shard;

/// Pause for each shard in the first round: 64 shards a second.
const FIRST_PAUSE: Duration = Duration::from_micros(15_625);
/// Pause for each shard in later rounds: 23 hours for all of them.
const LATER_PAUSE: Duration = Duration::from_secs(20);
/// The pause is at least so many times as long as reading took.
const REST: u32 = 4;
/// Shards read in one go at most, in the first round.
const AT_ONCE: u16 = 32;
/// Records after which no other shard is read in the same go: a few milliseconds.
const ENOUGH: u64 = 2048;

/// Audits for ever.
pub(super) async fn run(parts: &Parts) {
    let (mut next, mut first) = (0, true);
    loop {
        let at_once = if first { AT_ONCE } else { 1 };
        let began = Instant::now();
        let (looked_at, bad) = look(parts, next, at_once).await;
        let pause = if first { FIRST_PAUSE } else { LATER_PAUSE };
        for shard in bad {
            examine(parts, shard, Cause::DoesNotAddUp).await;
        }
        sleep((pause * u32::from(looked_at)).max(began.elapsed() * REST)).await;
        next += looked_at;
        if next >= SHARDS {
            if first {
                tracing::debug!("the records of every shard have been added up");
            }
            (next, first) = (0, false);
        }
    }
}

/// Looks at shards from `from` on; gives how many, and which of them do not add up.
async fn look(parts: &Parts, from: u16, at_once: u16) -> (u16, Vec<u16>) {
    let state = &parts.node.state;
    let looked = read(
        |look| state.read(look),
        move |view| {
            let (mut bad, mut records) = (Vec::new(), 0_u64);
            let mut at = from;
            while at < SHARDS && at - from < at_once && records < ENOUGH {
                match shard::sum(view, at) {
                    Ok(sum) => {
                        records = records.saturating_add(sum.pins);
                        if sum != view.shard(at)?.sum {
                            bad.push(at);
                        }
                    }
                    Err(error) if unreadable(&error) => bad.push(at),
                    Err(error) => return Err(error),
                }
                at += 1;
            }
            Ok(Read { looked_at: at - from, bad })
        },
    );
    match looked.await {
        Ok(Read { looked_at, bad }) => (looked_at, bad),
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&error), shard = from, "shards could not be read for the audit");
            (1, Vec::new())
        }
    }
}
