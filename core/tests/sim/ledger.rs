//! What was written without a quorum, as the simulator saw it, not as the peers claim: who accepted what, what that
//! peer was shown at that moment, and who was told. Checked with every write to a store.
//!
//! **Rule:** a write that was accepted is shown at once; a row leaves an outbox only with the merge it waited for.
//! **Rule:** while something that waits is not shown, nothing is applied and nothing is accepted.
//! **Rule:** what was acknowledged is on the disk of the peer that acknowledged it, until its merge is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_core::consensus::log::AppliedPosition;
use cluster_core::crdt::merge::{Eventual, VersionId, Wish};
use cluster_core::ports::{OutboxChange, StateView};
use cluster_core::testing::mem_state::{Contents, StateEvent};
use cluster_types::{Cid, PeerId, Pin};
use parking_lot::Mutex;

use crate::trace::Trace;

/// An eventual write, and what its author was shown of its CID.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) write: Eventual,
    pub(crate) host: usize,
    /// Whether a client was told.
    pub(crate) acknowledged: bool,
    /// The log up to here.
    pub(crate) applied: u64,
    /// Other eventual writes.
    pub(crate) saw: BTreeSet<VersionId>,
    /// What stood in the log: names of pins; none: nothing stood there. Its own name is here too, for a leader may have
    /// carried out the same request.
    pub(crate) saw_in_log: BTreeSet<Option<String>>,
}

/// A write that was acknowledged with an index.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) cid: Cid,
    pub(crate) index: u64,
    pub(crate) wish: Wish,
    /// The name of the pin that was asked for.
    pub(crate) name: Option<String>,
    /// What waited on that peer when the client asked.
    pub(crate) behind: BTreeSet<VersionId>,
}

#[derive(Default)]
struct Inner {
    written: BTreeMap<VersionId, Written>,
    /// In the order they were accepted.
    order: Vec<VersionId>,
    committed: Vec<Committed>,
    /// Acknowledged, and not seen as merged on the author's disk yet.
    open: BTreeSet<(usize, VersionId)>,
    /// Where snapshots took a peer over entries, with the events of these: from behind, up to.
    gaps: BTreeMap<usize, Vec<(u64, u64)>>,
    /// The pins that clients asked for, by CID and name, and whether they were told that it had no effect.
    attempts: BTreeMap<(Cid, String), bool>,
    applied: BTreeMap<usize, u64>,
}

/// Everything that was written without a quorum, and all acknowledgements.
pub(crate) struct Ledger {
    trace: Arc<Trace>,
    peers: Vec<PeerId>,
    inner: Mutex<Inner>,
}

impl Ledger {
    pub(crate) fn new(trace: Arc<Trace>, peers: Vec<PeerId>) -> Self {
        Self { trace, peers, inner: Mutex::default() }
    }

    /// Takes note of a write to the store of a host.
    pub(crate) fn take(&self, host: usize, event: StateEvent<'_>) {
        let applied = AppliedPosition::decode(event.applied).map_or(0, |position| position.index());
        let noted = match event.changes {
            None => {
                self.trace.note("install", &[host as u64, applied], "", &[]);
                let mut inner = self.inner.lock();
                let before = inner.applied.get(&host).copied().unwrap_or(0);
                inner.gaps.entry(host).or_default().push((before, applied));
                Ok(())
            }
            Some(changes) => changes.outbox.iter().try_for_each(|change| match change {
                OutboxChange::Put { write, own } => self.put(host, write, *own, applied, event.now),
                OutboxChange::Remove { id, .. } => self.removed(host, *id, event.now),
            }),
        };
        for (cid, record) in event.changes.iter().flat_map(|changes| &changes.tracker) {
            let status = record.as_ref().map(|record| (record.status, record.generation));
            self.trace.note("tracker", &[host as u64], format!("{cid} {status:?}"), &[]);
        }
        if event.changes.is_none_or(|changes| changes.applied.is_some()) {
            self.inner.lock().applied.insert(host, applied);
        }
        let accepts = |change: &OutboxChange| matches!(change, OutboxChange::Put { .. });
        let adds = event.changes.is_some_and(|changes| changes.applied.is_some() || changes.outbox.iter().any(accepts));
        if adds && event.lowered {
            self.trace.fail(format!("host {host}: at {applied} something waits and is not shown"));
        }
        if let Err(what) = noted {
            self.trace.fail(format!("host {host}: {what}"));
        }
    }

    fn put(&self, host: usize, write: &Eventual, own: bool, applied: u64, now: &dyn StateView) -> Result<(), String> {
        let numbers = [host as u64, u64::from(own), applied];
        self.trace.note("outbox", &numbers, describe(write), write.id().as_bytes());
        let waiting = now.waiting(&write.cid).map_err(|error| error.to_string())?;
        if waiting.iter().filter(|waiting| waiting.write.id() == write.id()).count() != 1 {
            return Err(format!("{} is not in the outbox once", describe(write)));
        }
        if !own {
            return Ok(());
        }
        let shown = now.shown(&write.cid).map_err(|error| error.to_string())?;
        let fits = match write.wish {
            Wish::Pin | Wish::Join => shown.as_ref().map(name) == write.result.as_ref().map(name),
            Wish::Unpin | Wish::Expire => shown.is_none(),
            Wish::Reallocate => {
                shown.as_ref().map(|pin| &pin.allocations) == write.result.as_ref().map(|pin| &pin.allocations)
            }
        };
        if !fits {
            return Err(format!("{} is accepted, and {:?} is shown", describe(write), shown));
        }
        if self.peers[host] != write.author {
            return Err(format!("{} names another author", describe(write)));
        }
        let in_log = now.pin(&write.cid).map_err(|error| error.to_string())?.map(|pin| name(&pin));
        let mut inner = self.inner.lock();
        let mut written = Written {
            write: write.clone(),
            host,
            acknowledged: false,
            applied,
            saw: BTreeSet::new(),
            saw_in_log: [Some(in_log), write.result.as_ref().map(|pin| Some(name(pin)))]
                .into_iter()
                .flatten()
                .collect(),
        };
        for earlier in waiting.iter().map(|waiting| &waiting.write).filter(|earlier| earlier.id() != write.id()) {
            let Some(known) = inner.written.get(&earlier.id()) else {
                return Err(format!("nobody accepted {}", describe(earlier)));
            };
            // A reallocation shows nothing of the wishes its author knew.
            if earlier.wish != Wish::Reallocate {
                written.saw.insert(earlier.id());
                written.saw.extend(&known.saw);
                written.saw_in_log.extend(known.saw_in_log.iter().cloned());
                written.applied = written.applied.max(known.applied);
            }
        }
        inner.order.push(write.id());
        inner.written.insert(write.id(), written);
        Ok(())
    }

    fn removed(&self, host: usize, id: VersionId, now: &dyn StateView) -> Result<(), String> {
        self.trace.note("merged", &[host as u64], "", id.as_bytes());
        match now.is_merged(&id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{id} leaves the outbox and is not merged")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A client was told by `host` that its wish on `cid` is accepted, to be merged later. `contents` is the disk of the
    /// host as a power cut would leave it.
    pub(crate) fn acknowledge(
        &self,
        host: usize,
        cid: Cid,
        (wish, pin): (Wish, Option<&str>),
        durable: &Contents,
    ) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let Inner { written, order, open, .. } = &mut *inner;
        let fits = |written: &Written| {
            let result = written.write.result.as_ref().map(name);
            written.host == host
                && !written.acknowledged
                && (written.write.cid, written.write.wish) == (cid, wish)
                && pin.is_none_or(|pin| result.as_deref() == Some(pin))
        };
        let id = order.iter().rev().copied().find(|id| fits(&written[id]));
        let id = id.ok_or_else(|| format!("{wish} of {cid} is acknowledged, and nobody wrote it down"))?;
        if let Some(written) = written.get_mut(&id) {
            written.acknowledged = true;
        }
        open.insert((host, id));
        drop(inner);
        self.trace.note("eventual", &[host as u64], format!("{wish}"), id.as_bytes());
        self.check_kept(host, durable)
    }

    /// What this host acknowledged waits on its disk, or is merged there.
    pub(crate) fn check_kept(&self, host: usize, durable: &Contents) -> Result<(), String> {
        let waiting: BTreeSet<VersionId> = durable.outbox.iter().map(|waiting| waiting.write.id()).collect();
        let mut inner = self.inner.lock();
        let Inner { open, written, .. } = &mut *inner;
        open.retain(|(of, id)| *of != host || !durable.merged.contains_key(id));
        match open.iter().find(|(of, id)| *of == host && !waiting.contains(id)) {
            Some((_, id)) => Err(format!("{} is acknowledged, and not on the disk", describe(&written[id].write))),
            None => Ok(()),
        }
    }

    /// A client asks for a pin.
    pub(crate) fn attempt(&self, cid: Cid, name: &str) {
        self.inner.lock().attempts.insert((cid, name.to_owned()), false);
    }

    /// A client was told that its wish for a pin has no effect, and never will.
    pub(crate) fn refuse(&self, cid: Cid, name: &str) {
        self.inner.lock().attempts.insert((cid, name.to_owned()), true);
    }

    /// Each pin was asked for once (INV2), and nobody was told that it would not be (INV4).
    pub(crate) fn check_asked<'a>(&self, pins: impl IntoIterator<Item = &'a Pin>) -> Result<(), String> {
        let inner = self.inner.lock();
        for pin in pins {
            match inner.attempts.get(&(pin.cid, name(pin))) {
                Some(false) => {}
                Some(true) => return Err(format!("pin {} of {} was refused, and is there", name(pin), pin.cid)),
                None => return Err(format!("nobody asked for the pin {} of {}", name(pin), pin.cid)),
            }
        }
        Ok(())
    }

    /// A client was told that its wish is in the log.
    pub(crate) fn commit(&self, committed: Committed) {
        self.inner.lock().committed.push(committed);
    }

    /// A host crashed: what it had applied and not flushed is gone, so a snapshot that comes next takes it over that, too.
    pub(crate) fn fell_back(&self, host: usize, kept: &Contents) {
        let applied = AppliedPosition::decode(kept.applied.as_ref()).map_or(0, |position| position.index());
        self.inner.lock().applied.insert(host, applied);
    }

    /// Whether a snapshot took this host over the entry.
    pub(crate) fn skipped(&self, host: usize, index: u64) -> bool {
        let inner = self.inner.lock();
        inner.gaps.get(&host).is_some_and(|gaps| gaps.iter().any(|(from, to)| (*from + 1..=*to).contains(&index)))
    }

    /// Everything accepted without a quorum, and everything acknowledged with one.
    pub(crate) fn all(&self) -> (BTreeMap<VersionId, Written>, Vec<Committed>) {
        let inner = self.inner.lock();
        (inner.written.clone(), inner.committed.clone())
    }
}

/// The name a client gave to a pin.
pub(crate) fn name(pin: &Pin) -> String {
    pin.options.name.clone()
}

/// A write in a few words.
pub(crate) fn describe(write: &Eventual) -> String {
    let pin = write.result.as_ref().map(name).unwrap_or_default();
    format!("{} {pin} of {} by {} ({})", write.wish, write.cid, write.author, write.id())
}
