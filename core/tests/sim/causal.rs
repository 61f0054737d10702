//! Judges what the log made of everything that was written: naively, from the entries and from what the simulator saw of
//! each author, without versions and histories.
//!
//! A wish is *open* when nobody who had seen it wished something else since. A write of the log has seen everything
//! before it in the log; an eventual one what its author was shown. An open pin is wanted: the first of them by depth
//! and time stands, and whoever does not stand is told so by an event. Without an open pin nothing stands.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::consensus::operation::{Entry, Operation, Proposed};
use cluster_core::crdt::merge::{Eventual, Party, VersionId, Wish};
use cluster_core::ports::ConflictEvent;
use cluster_types::{Cid, PeerId, Pin, PinMode, Timestamp};

use crate::ledger::{Committed, Written, describe, name};

/// Names of pins by CID, as they stand.
pub(crate) type Names = BTreeMap<Cid, String>;

/// A wish in the log.
#[derive(Clone, Debug)]
struct Item {
    index: u64,
    /// None: of the log.
    author: Option<PeerId>,
    id: Option<VersionId>,
    /// The request of the log.
    request: Option<[u8; 16]>,
    wish: Wish,
    time: Timestamp,
    /// None: it shall be gone.
    pin: Option<Pin>,
}

impl Item {
    fn rank(&self) -> Option<(bool, i64)> {
        let pin = self.pin.as_ref()?;
        Some((pin.max_depth.mode() == PinMode::Recursive, self.time.unix_seconds()))
    }
}

/// The log, carried out naively.
#[derive(Default)]
pub(crate) struct Judge {
    written: BTreeMap<VersionId, Written>,
    open: BTreeMap<Cid, Vec<Item>>,
    requests: BTreeSet<[u8; 16]>,
    /// Those that changed something.
    effective: BTreeSet<[u8; 16]>,
    /// Which writes are merged, and where.
    merged: BTreeMap<VersionId, u64>,
}

impl Judge {
    /// Over what was accepted without a quorum.
    pub(crate) fn new(written: BTreeMap<VersionId, Written>) -> Self {
        Self { written, ..Self::default() }
    }

    /// Carries out the log; compares with the names that were seen at some indexes.
    pub(crate) fn replay(&mut self, chain: &[(u64, Entry)], seen: &BTreeMap<u64, Names>) -> Result<(), String> {
        let mut seen = seen.iter().peekable();
        for (index, entry) in chain {
            // What was seen before this entry is what the entries before it left.
            while let Some((at, names)) = seen.next_if(|(at, _)| *at < index) {
                self.compare(*at, names)?;
            }
            for proposed in &entry.operations {
                self.carry_out(*index, entry.time, proposed)?;
            }
        }
        seen.try_for_each(|(at, names)| self.compare(*at, names))
    }

    fn compare(&self, index: u64, names: &Names) -> Result<(), String> {
        let cids: BTreeSet<&Cid> = self.open.keys().chain(names.keys()).collect();
        for cid in cids {
            let (open, stands) = (self.open.get(cid).map(Vec::as_slice).unwrap_or_default(), names.get(cid));
            let best = open.iter().filter_map(Item::rank).max();
            let firsts = open.iter().filter(|item| item.rank().is_some() && item.rank() == best);
            let mut firsts = firsts.filter_map(|item| item.pin.as_ref()).map(name);
            let fits = match (best, stands) {
                (None, None) => true,
                (Some(_), Some(stands)) => firsts.any(|first| first == *stands),
                _ => false,
            };
            if !fits {
                return Err(format!("index {index}, {cid}: stands {stands:?}, but open are {open:#?}"));
            }
        }
        Ok(())
    }

    fn record(&self, cid: &Cid) -> Option<&Pin> {
        self.open.get(cid)?.iter().max_by_key(|item| item.rank())?.pin.as_ref()
    }

    fn carry_out(&mut self, index: u64, time: Timestamp, proposed: &Proposed) -> Result<(), String> {
        if !matches!(proposed.operation, Operation::Reserve) && !self.requests.insert(proposed.id) {
            return Ok(());
        }
        let (cid, wish, pin) = match &proposed.operation {
            Operation::Put(pin) => {
                let deep = |pin: &Pin| pin.max_depth.mode() == PinMode::Recursive;
                if self.record(&pin.cid).is_some_and(deep) && !deep(pin) {
                    return Ok(());
                }
                self.check_once(index, pin)?;
                (pin.cid, Wish::Pin, Some(pin.as_ref().clone()))
            }
            Operation::Remove { cid } | Operation::RemovePart { cid } => (*cid, Wish::Unpin, None),
            Operation::Expire { cid } => (*cid, Wish::Expire, None),
            Operation::Merge(merge) => {
                let mut writes = merge.writes.clone();
                writes.sort_by_key(|write| (write.time, write.id()));
                return writes.iter().try_for_each(|write| self.merge(index, time, write));
            }
            Operation::Reallocate { .. } | Operation::Reserve => return Ok(()),
        };
        // Records keep whole seconds.
        let over = |pin: &Pin| !pin.options.expire_at.is_zero() && pin.options.expire_at.whole_seconds() <= time;
        let stands = self.record(&cid);
        let takes_effect = match wish {
            Wish::Expire => stands.is_some_and(over),
            Wish::Unpin => stands.is_some(),
            Wish::Pin | Wish::Reallocate | Wish::Join => true,
        };
        if takes_effect {
            self.effective.insert(proposed.id);
            let time = pin.as_ref().map_or(time, |pin| pin.timestamp);
            let item = Item { index, author: None, id: None, request: Some(proposed.id), wish, time, pin };
            self.open.insert(cid, vec![item]);
        }
        Ok(())
    }

    /// A request that was accepted without a quorum, and is merged, is not carried out once more.
    fn check_once(&self, index: u64, pin: &Pin) -> Result<(), String> {
        let same = |id: &VersionId| self.written.get(id).and_then(|written| written.write.result.as_ref().map(name));
        match self.merged.iter().find(|(id, _)| same(id).as_deref() == Some(name(pin).as_str())) {
            Some((_, at)) => Err(format!("pin {} is merged at {at}, and put once more at {index}", name(pin))),
            None => Ok(()),
        }
    }

    fn merge(&mut self, index: u64, now: Timestamp, write: &Eventual) -> Result<(), String> {
        // The same request through the log, before or after: one of them counts.
        let in_log = write.attempt.is_some_and(|attempt| self.effective.contains(&attempt));
        self.requests.extend(write.attempt);
        if self.merged.contains_key(&write.id()) {
            return Ok(());
        }
        let written = self.written.get(&write.id()).cloned();
        let written = written.ok_or_else(|| format!("nobody accepted {}", describe(write)))?;
        let attempts: BTreeSet<_> = written.saw.iter().filter_map(|id| self.written.get(id)?.write.attempt).collect();
        self.merged.insert(write.id(), index);
        let time = write.time.min(now);
        let over = |base: &Pin| base.options.expire_at <= time;
        if write.wish == Wish::Reallocate || (write.wish == Wish::Expire && !write.base.as_ref().is_some_and(over)) {
            return Ok(());
        }
        for id in &written.saw {
            self.merged.entry(*id).or_insert(index);
        }
        let open = self.open.entry(write.cid).or_default();
        if in_log {
            open.retain(|item| item.author.is_none() || !has_seen(&written, &attempts, item));
            return Ok(());
        }
        open.retain(|item| !has_seen(&written, &attempts, item));
        let pin = write.result.clone();
        let (author, id) = (Some(write.author), Some(write.id()));
        open.push(Item { index, author, id, request: None, wish: write.wish, time, pin });
        Ok(())
    }

    /// What was acknowledged without a quorum is merged.
    pub(crate) fn check_merged(&self) -> Result<(), String> {
        let lost = |written: &&Written| written.acknowledged && !self.merged.contains_key(&written.write.id());
        match self.written.values().find(lost) {
            Some(lost) => Err(format!("{} was acknowledged, and is lost", describe(&lost.write))),
            None => Ok(()),
        }
    }

    /// What was acknowledged with an index up to `last` is in the log, in the right order.
    pub(crate) fn check_committed(
        &self,
        last: u64,
        chain: &[(u64, Entry)],
        committed: &[Committed],
    ) -> Result<(), String> {
        let entries: BTreeMap<u64, &Entry> = chain.iter().map(|(index, entry)| (*index, entry)).collect();
        for told in committed.iter().filter(|told| told.index > 0 && told.index <= last) {
            let operations = entries.get(&told.index).map(|entry| entry.operations.as_slice()).unwrap_or_default();
            if !operations.iter().any(|proposed| is_of(&proposed.operation, told)) {
                return Err(format!("{told:?} was acknowledged, and is not in its entry"));
            }
            let overtaken = told.behind.iter().find(|id| self.merged.get(id).is_some_and(|at| *at >= told.index));
            if let Some(id) = overtaken {
                return Err(format!("{told:?} overtook {}", describe(&self.written[id].write)));
            }
        }
        Ok(())
    }

    /// Whoever is open and does not stand was told so.
    pub(crate) fn check_events(&self, names: &Names, events: &[ConflictEvent]) -> Result<(), String> {
        for (cid, open) in &self.open {
            let Some(stands) = names.get(cid) else { continue };
            let told: Vec<&Party> =
                events.iter().filter(|event| event.conflict.cid == *cid).map(|event| &event.conflict.loser).collect();
            for item in open {
                let is_told = match (&item.pin, item.wish) {
                    (Some(pin), _) => {
                        name(pin) == *stands
                            || told.iter().any(|party| party.record.as_ref().map(name) == Some(name(pin)))
                    }
                    (None, Wish::Unpin) => told.iter().any(|party| {
                        let same_time = item.author.is_none() || party.time == item.time;
                        party.record.is_none() && party.author == item.author && same_time
                    }),
                    (None, _) => true,
                };
                if !is_told {
                    return Err(format!("{cid}: {stands} stands, and no event says that this lost: {item:#?}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the author of an eventual write had seen a wish; `attempts` went before what he saw.
fn has_seen(written: &Written, attempts: &BTreeSet<[u8; 16]>, item: &Item) -> bool {
    let by_name = match item.id {
        Some(id) => written.saw.contains(&id),
        None => written.saw_in_log.contains(&item.pin.as_ref().map(name)),
    };
    let tried = item.request.is_some_and(|request| attempts.contains(&request));
    by_name || tried || item.index <= written.applied
}

fn is_of(operation: &Operation, told: &Committed) -> bool {
    match (operation, told.wish) {
        (Operation::Put(pin), Wish::Pin) => pin.cid == told.cid && Some(name(pin)) == told.name,
        (Operation::Remove { cid }, Wish::Unpin) | (Operation::Expire { cid }, Wish::Expire) => *cid == told.cid,
        (Operation::Reallocate { pin, .. }, Wish::Reallocate) => pin.cid == told.cid,
        _ => false,
    }
}
