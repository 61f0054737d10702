//! Tells followers what was committed, when this peer leads.
//!
//! The state machine offers every group of entries it has applied and never waits: the queue is bounded, and what finds
//! no room is dropped. Followers see the gap and ask for what they miss. While messages go out slower than entries come
//! in, what waits is put together.
//!
//! **Invariant:** a message goes out only while this peer leads as far as it knows; entries are on a quorum in any case.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{BoxError, ErrorChain, Role};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::batch::{MAX_BYTES, MAX_ENTRIES, Packed, encode};
use super::{Kind, seal};
use crate::consensus::Position;
use crate::consensus::log::LogId;
use crate::consensus::operation::Entry;
use crate::ports::{Gossip, Topic};
use crate::task::{OnExit, TaskGroup};
use crate::watch;

/// Groups of entries that may wait. The state machine applies some 4 MiB at most in one go, mostly far less.
const QUEUE: usize = 16;
/// Bytes per second that are published: below what gossip lets a member say, and a bulk load is caught up with more
/// cheaply shard by shard.
const BYTES_PER_SECOND: f64 = 3.0 * 1024.0 * 1024.0;
/// The shortest pause between two messages, in which small entries come together: a signature and a check on every
/// peer are the price of a message, however small it is.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the leader says where the log stands when nothing is written: whoever missed the last message learns it.
const STANDING: Duration = Duration::from_secs(10);

/// Entries applied together.
#[derive(Clone, Debug)]
struct Group {
    previous: Option<LogId>,
    entries: Arc<Vec<(LogId, Entry)>>,
    digests: Vec<[u8; 32]>,
}

/// Where the state machine puts what it has applied.
#[derive(Clone, Debug)]
pub struct Feed {
    groups: mpsc::Sender<Group>,
}

/// What waits to be published.
#[derive(Debug)]
pub struct Queue {
    groups: mpsc::Receiver<Group>,
}

/// A bounded queue of applied entries.
pub fn feed() -> (Feed, Queue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Feed { groups: sender }, Queue { groups: receiver })
}

impl Feed {
    /// Offers entries that were applied behind `previous`, each with its digest. Never waits.
    pub fn offer(&self, previous: Option<LogId>, entries: Arc<Vec<(LogId, Entry)>>, digests: Vec<[u8; 32]>) {
        if self.groups.try_send(Group { previous, entries, digests }).is_err() {
            tracing::trace!("applied entries are not told to followers: too many wait");
        }
    }
}

/// Publishes what comes out of `queue` for as long as the peer runs.
pub fn publish(queue: Queue, gossip: Arc<dyn Gossip>, position: watch::Receiver<Position>, tasks: &TaskGroup) {
    let publisher = Publisher { gossip, position, waiting: Waiting::default(), stands_at: None };
    let stop = tasks.stop_token();
    tasks.spawn("publish the log", OnExit::Continue, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = publisher.run(queue.groups) => {}
        }
        Ok::<(), BoxError>(())
    });
}

struct Publisher {
    gossip: Arc<dyn Gossip>,
    position: watch::Receiver<Position>,
    waiting: Waiting,
    /// The last place that was applied here.
    stands_at: Option<LogId>,
}

impl Publisher {
    async fn run(mut self, mut groups: mpsc::Receiver<Group>) {
        let mut next_standing = Instant::now() + STANDING;
        loop {
            tokio::select! {
                biased;
                group = groups.recv() => match group {
                    Some(group) => self.take(group),
                    None => return,
                },
                () = sleep_until(next_standing) => {
                    next_standing = Instant::now() + STANDING;
                    if self.stands_at.is_some() && self.leads() {
                        self.send(encode(self.stands_at, [])).await;
                    }
                }
            }
            while let Ok(group) = groups.try_recv() {
                self.take(group);
            }
            while let Some(batch) = self.waiting.next() {
                let size = self.send(batch).await;
                next_standing = Instant::now() + STANDING;
                #[expect(clippy::cast_precision_loss, reason = "half a megabyte is exact")]
                let pause = PAUSE.max(Duration::from_secs_f64(size as f64 / BYTES_PER_SECOND));
                tokio::time::sleep(pause).await;
                while let Ok(group) = groups.try_recv() {
                    self.take(group);
                }
            }
        }
    }

    fn leads(&self) -> bool {
        self.position.borrow().role == Role::Leader
    }

    fn take(&mut self, group: Group) {
        self.stands_at = group.entries.last().map(|(id, _)| *id);
        if self.leads() {
            self.waiting.add(group);
        } else {
            self.waiting = Waiting::default();
        }
    }

    /// Sends one message; returns its size.
    async fn send(&self, batch: Vec<u8>) -> usize {
        let message: Bytes = seal(Kind::Batch, &batch);
        let size = message.len();
        if let Err(error) = self.gossip.publish(Topic::Log, message).await {
            tracing::debug!(error = %ErrorChain(&error), "committed entries were not published");
        }
        size
    }
}

/// Entries that wait, one behind the other as far as possible.
#[derive(Debug, Default)]
struct Waiting {
    /// The place before the first of them.
    previous: Option<LogId>,
    entries: VecDeque<Packed>,
}

impl Waiting {
    /// The most entries that are kept: four full messages of the smallest.
    const LIMIT: usize = 4 * MAX_ENTRIES;

    /// Adds a group. Behind a gap, or when too many wait, only the newest are kept.
    fn add(&mut self, group: Group) {
        let last = self.entries.back().map(|entry| entry.id).or(self.previous);
        if last != group.previous || self.entries.len() >= Self::LIMIT {
            self.entries.clear();
        }
        if self.entries.is_empty() {
            self.previous = group.previous;
        }
        let entries = group.entries.iter().zip(group.digests);
        self.entries.extend(entries.map(|((id, entry), digest)| Packed::new(*id, entry, digest)));
    }

    /// The next message: as many entries as fit. One that fits into none is left out; it leaves a gap.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (mut previous, mut batch, mut size) = (self.previous, Vec::new(), 0);
        while let Some(entry) = self.entries.front() {
            let needed = entry.size();
            if batch.len() == MAX_ENTRIES || (size + needed > MAX_BYTES && !batch.is_empty()) {
                break;
            }
            let entry = self.entries.pop_front()?;
            self.previous = Some(entry.id);
            if needed > MAX_BYTES {
                tracing::debug!(bytes = needed, "an entry is too large for followers; they will ask for it");
                previous = self.previous;
                continue;
            }
            size += needed;
            batch.push(entry);
        }
        (!batch.is_empty()).then(|| encode(previous, batch))
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
