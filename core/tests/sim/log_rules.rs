//! Rules that are checked with every write to a log: one leader a term, and logs that match (INV10).

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_core::consensus::operation::Entry;
use cluster_core::testing::mem_log::{LogEntry, LogEvent};
use openraft::EntryPayload;
use parking_lot::Mutex;

use crate::trace::Trace;

#[derive(Default)]
struct Seen {
    /// The raft node that leads in a term.
    leaders: BTreeMap<u64, u64>,
    /// The content of an entry, by index and term.
    entries: BTreeMap<(u64, u64), [u8; 32]>,
    /// The term of the entry before, by index and term.
    before: BTreeMap<(u64, u64), u64>,
    /// What the entries carry, where it is operations.
    carried: BTreeMap<(u64, u64), Entry>,
}

/// What the logs of all hosts have shown.
pub(crate) struct LogRules {
    trace: Arc<Trace>,
    seen: Mutex<Seen>,
}

impl LogRules {
    pub(crate) fn new(trace: Arc<Trace>) -> Self {
        Self { trace, seen: Mutex::new(Seen::default()) }
    }

    /// Takes note of a write on a host.
    pub(crate) fn take(&self, host: usize, event: LogEvent<'_>) {
        match event {
            LogEvent::Vote(vote) => {
                let (term, node) = (vote.leader_id.term, vote.leader_id.voted_for);
                self.trace.note("vote", &[host as u64, term, node, u64::from(vote.committed)], "", &[]);
                if vote.committed {
                    let leader = *self.seen.lock().leaders.entry(term).or_insert(node);
                    if leader != node {
                        self.trace.fail(format!("two leaders in term {term}: {leader} and {node}"));
                    }
                }
            }
            LogEvent::Append(before, entry) => self.append(host, before, entry),
        }
    }

    /// The entries with operations up to `last` (index and term), oldest first, with their indexes.
    pub(crate) fn chain(&self, last: (u64, u64)) -> Result<Vec<(u64, Entry)>, String> {
        let seen = self.seen.lock();
        let (mut place, mut entries) = (last, Vec::new());
        loop {
            entries.extend(seen.carried.get(&place).map(|entry| (place.0, entry.clone())));
            if place.0 == 0 {
                entries.reverse();
                return Ok(entries);
            }
            let term = seen.before.get(&place).ok_or_else(|| format!("nobody wrote the entry before {place:?}"))?;
            place = (place.0 - 1, *term);
        }
    }

    fn append(&self, host: usize, before: Option<&LogEntry>, entry: &LogEntry) {
        let place = place(entry);
        let bytes = rmp_serde::to_vec(&entry.payload).expect("what is sent over the wire can be encoded");
        let content = *blake3::hash(&bytes).as_bytes();
        self.trace.note("append", &[host as u64, place.0, place.1], "", &content);
        let mut seen = self.seen.lock();
        if let EntryPayload::Normal(carried) = &entry.payload {
            seen.carried.entry(place).or_insert_with(|| carried.clone());
        }
        if *seen.entries.entry(place).or_insert(content) != content {
            self.trace.fail(format!("host {host}: another entry at index and term {place:?} than elsewhere"));
        }
        if let Some((_, term)) = before.map(self::place) {
            if *seen.before.entry(place).or_insert(term) != term {
                self.trace.fail(format!("host {host}: logs that share {place:?} differ before it"));
            }
            if term > place.1 {
                self.trace.fail(format!("host {host}: the term falls to {} after {term}", place.1));
            }
        }
    }
}

/// Index and term.
fn place(entry: &LogEntry) -> (u64, u64) {
    (entry.log_id.index(), **entry.log_id.committed_leader_id())
}
