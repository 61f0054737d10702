//! What must be true of every peer after every step about what waits there: shown is what the log has and what waits over
//! it, worked out anew.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use cluster_core::consensus::digest::order_key;
use cluster_core::crdt::merge::{Eventual, History, MergeState, Place, VersionId, merge_all};
use cluster_core::testing::mem_state::Contents;
use cluster_types::{Cid, Pin, Timestamp};

/// While a snapshot is installed nothing is shown over the log; for no longer than this.
const LOWERED_LIMIT: Duration = Duration::from_secs(5);

/// What was seen in earlier steps.
#[derive(Default)]
pub(crate) struct WaitingRules {
    /// Since when a host shows nothing over the log.
    lowered: BTreeMap<usize, Duration>,
}

impl WaitingRules {
    /// Looks at one host that runs. Says whether everything is shown that waits.
    pub(crate) fn check(
        &mut self,
        host: usize,
        now: Duration,
        index: u64,
        contents: &Contents,
    ) -> Result<bool, String> {
        let waiting = by_cid(contents);
        let orders: BTreeSet<Vec<u8>> = waiting.keys().map(order_key).collect();
        if let Some(order) = contents.committed.keys().find(|order| !orders.contains(*order)) {
            return Err(format!("nothing waits on {order:?}, and its committed record is kept apart"));
        }
        if orders.len() > contents.committed.len() {
            let since = *self.lowered.entry(host).or_insert(now);
            let late = now > since + LOWERED_LIMIT;
            return if late { Err("what waits is not shown".to_owned()) } else { Ok(false) };
        }
        self.lowered.remove(&host);
        let shown: BTreeMap<Cid, &Pin> = contents.pins.iter().map(|pin| (pin.cid, pin)).collect();
        for (cid, waiting) in waiting {
            let order = order_key(&cid);
            let committed = contents.committed.get(&order).cloned().flatten();
            let history = contents.histories.iter().find(|(of, _)| *of == cid).map(|(_, history)| history.clone());
            if let Some(merged) = waiting.iter().find(|write| contents.merged.contains_key(&write.id())) {
                return Err(format!("{} waits, and is merged", crate::ledger::describe(merged)));
            }
            let apart = merged_apart(committed.clone(), history.clone(), &waiting, index);
            let wanted = merged(committed.clone(), history, waiting, index);
            if apart != wanted {
                return Err(format!("{cid}: what waits comes to {wanted:?} at once, and to {apart:?} one by one"));
            }
            if wanted.as_ref() != shown.get(&cid).copied() {
                let shown = shown.get(&cid);
                return Err(format!("{cid}: shown is {shown:?}, but {committed:?} and what waits come to {wanted:?}"));
            }
        }
        Ok(true)
    }
}

fn by_cid(contents: &Contents) -> BTreeMap<Cid, Vec<Eventual>> {
    let mut waiting: BTreeMap<Cid, Vec<Eventual>> = BTreeMap::new();
    for row in &contents.outbox {
        waiting.entry(row.write.cid).or_default().push(row.write.clone());
    }
    waiting
}

/// What writes make of a committed record.
fn merged(committed: Option<Pin>, history: Option<History>, waiting: Vec<Eventual>, index: u64) -> Option<Pin> {
    let time = waiting.iter().map(|write| write.time).max().unwrap_or(Timestamp::ZERO);
    let state = One(committed.clone(), history, BTreeSet::new());
    let set = merge_all(&state, waiting, Place::overlay(index, time)).unwrap_or_else(|never| match never {});
    set.cids.into_iter().next().map_or(committed, |merged| merged.record)
}

/// The same, one write after the other, the newest first, and each of them twice (INV9).
fn merged_apart(committed: Option<Pin>, history: Option<History>, waiting: &[Eventual], index: u64) -> Option<Pin> {
    let time = waiting.iter().map(|write| write.time).max().unwrap_or(Timestamp::ZERO);
    let mut newest_first: Vec<&Eventual> = waiting.iter().collect();
    newest_first.sort_by_key(|write| std::cmp::Reverse((write.time, write.id())));
    let mut state = One(committed, history, BTreeSet::new());
    for write in newest_first.into_iter().flat_map(|write| [write, write]) {
        let set =
            merge_all(&state, [write.clone()], Place::overlay(index, time)).unwrap_or_else(|never| match never {});
        state.2.extend(set.remember);
        if let Some(merged) = set.cids.into_iter().next() {
            (state.0, state.1) = (merged.record, Some(merged.history));
        }
    }
    state.0
}

/// Record, history, and which writes are known.
struct One(Option<Pin>, Option<History>, BTreeSet<VersionId>);

impl MergeState for One {
    type Error = Infallible;

    fn record(&self, _cid: &Cid) -> Result<Option<Pin>, Infallible> {
        Ok(self.0.clone())
    }

    fn history(&self, _cid: &Cid) -> Result<Option<History>, Infallible> {
        Ok(self.1.clone())
    }

    fn is_known(&self, id: &VersionId) -> Result<bool, Infallible> {
        Ok(self.2.contains(id))
    }
}
