//! What is known of a CID that eventual writes are merged into: every living version, not only the first.
//!
//! A history is a few records for a CID that was written without a quorum, and nothing for any other. It is part of the
//! state: every peer has the same. It is forgotten when a write that was made before [`History::last_merged`] would be a stale
//! one.

use std::cmp::Ordering;

use cluster_types::{PeerId, Pin, PinMode, PinOptions, PinType, Timestamp};

use super::Place;
use super::version::{CarriedOut, Seen, VersionId, wish_bytes};
use super::write::{Eventual, Wish};

/// How many versions of one CID live side by side, how many removals and how many reallocations are remembered with
/// them. An author's later write replaces his earlier one, so there are about as many as there are peers that wrote
/// apart from each other.
pub(super) const MAX_LIVING: usize = 256;

/// A record that somebody wants and nobody who saw it replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) id: VersionId,
    /// None: the log.
    pub(super) author: Option<PeerId>,
    /// Whoever has seen the log up to here has seen it.
    pub(super) begins: u64,
    /// Whether somebody was told that it lost.
    pub(super) reported: bool,
    pub(super) joined: bool,
    pub(super) wish: VersionId,
    pub(super) record: Pin,
}

impl Version {
    /// What is compared, greatest first: a pin of sharded content before a plain one and a whole DAG before its root,
    /// because they keep what the other keeps; then what somebody wants by other means than the pinning service, whose
    /// requests are kept anyway; then the newer; then the canonical bytes, so that all peers agree.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        self.reach()
            .cmp(&other.reach())
            .then_with(|| other.record.only_requested.cmp(&self.record.only_requested))
            .then_with(|| self.record.timestamp.cmp(&other.record.timestamp))
            .then_with(|| wish_bytes(&self.record).cmp(&wish_bytes(&other.record)))
            .then_with(|| VersionId::of_record(&self.record).cmp(&VersionId::of_record(&other.record)))
            .then_with(|| self.id.cmp(&other.id))
    }

    /// Whether the author of a write had seen it, if its index is believed so far. A wish of the log has a name of its own
    /// even where an eventual write [shares](History::name_twin) it.
    fn is_seen(&self, seen: &Seen, believed: u64) -> bool {
        let by_wish = self.author.is_none() && seen.versions.contains(&self.wish);
        by_wish || seen.contains(believed, &self.id, self.begins)
    }

    pub(super) fn reach(&self) -> (PinType, bool) {
        (self.record.kind, self.record.max_depth.mode() == PinMode::Recursive)
    }

    /// Whether nobody loses anything by the other one: both say the same but for when it was said and who holds it, or this
    /// one is kept by requests alone, which are all taken over.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let asked = |version: &Self| -> (PinOptions, PinType, i32) {
            (version.record.options.clone(), version.record.kind, version.record.max_depth.0)
        };
        self.record.only_requested || asked(self) == asked(other)
    }
}

/// A removal that lost, or that nothing was left to lose against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) id: VersionId,
    pub(super) author: Option<PeerId>,
    pub(super) begins: u64,
    /// Whether somebody was told that it lost.
    pub(super) reported: bool,
    pub(super) wish: Wish,
    pub(super) time: Timestamp,
}

/// Who shall hold a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) id: VersionId,
    pub(super) author: Option<PeerId>,
    pub(super) begins: u64,
    /// Whether somebody was told that it lost.
    pub(super) reported: bool,
    /// The wish it was decided for.
    pub(super) target: VersionId,
    pub(super) allocations: Vec<PeerId>,
    pub(super) time: Timestamp,
}

impl Repair {
    /// What the log has decided counts more than what was decided without it.
    fn rank(&self) -> (bool, Timestamp, VersionId) {
        (self.author.is_none(), self.time, self.id)
    }
}

/// The living versions of a CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub(super) versions: Vec<Version>,
    pub(super) removals: Vec<Removal>,
    pub(super) repairs: Vec<Repair>,
    /// The wish that the last merge left as the record, and that record.
    pub(super) left: Option<(VersionId, VersionId)>,
    pub(super) last_merged: u64,
}

/// What a history comes to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) record: Option<Pin>,
    pub(super) reallocate: bool,
}

impl History {
    /// The log has spoken last: there is one version, or none.
    pub(super) fn begin(now: Option<&Pin>, place: Place) -> Self {
        let (begins, reported) = (place.record, false);
        let mut history = Self {
            versions: Vec::new(),
            removals: Vec::new(),
            repairs: Vec::new(),
            left: now.map(|pin| (VersionId::of_wish(pin), VersionId::of_record(pin))),
            last_merged: place.applied,
        };
        match (now, history.left) {
            (Some(pin), Some((wish, record))) => {
                let (author, allocations, time) = (None, pin.allocations.clone(), pin.timestamp);
                let record_of_log =
                    Version { id: wish, author, begins, reported, joined: false, wish, record: pin.clone() };
                history.versions.push(record_of_log);
                history.repairs.push(Repair { id: record, author, begins, reported, target: wish, allocations, time });
            }
            (Some(_) | None, _) => {
                let (id, wish, time) = (VersionId::ABSENT, Wish::Unpin, Timestamp::ZERO);
                history.removals.push(Removal { id, author: None, begins, reported, wish, time });
            }
        }
        history
    }

    /// The index of the last entry that merged something into it.
    pub fn last_merged(&self) -> u64 {
        self.last_merged
    }

    /// Whether the last merge left the wish that stands in the log now.
    pub(super) fn leads_to(&self, now: Option<&Pin>) -> bool {
        self.left.map(|(wish, _)| wish) == now.map(VersionId::of_wish)
    }

    /// Takes in that the log gave the record, otherwise unchanged, to other peers.
    pub(super) fn notice_reallocation(&mut self, now: Option<&Pin>, place: Place) {
        let (Some(now), Some((target, record))) = (now, self.left) else { return };
        let id = VersionId::of_record(now);
        if id == record {
            return;
        }
        self.repairs.retain(|repair| repair.target != target);
        let (allocations, time, begins) = (now.allocations.clone(), now.timestamp, place.record);
        self.repairs.push(Repair { id, author: None, begins, reported: false, target, allocations, time });
        self.left = Some((target, id));
    }

    /// The version that is the record.
    pub(super) fn winner(&self) -> Option<&Version> {
        self.versions.iter().max_by(|one, other| one.rank(other))
    }

    /// The reallocation that says who holds the record.
    pub(super) fn chosen_repair(&self) -> Option<&Repair> {
        let target = self.winner()?.wish;
        self.repairs.iter().filter(|repair| repair.target == target).max_by_key(|repair| repair.rank())
    }

    /// What its versions come to.
    pub(super) fn outcome(&self) -> Outcome {
        let Some(winner) = self.winner() else { return Outcome { record: None, reallocate: false } };
        let mut record = winner.record.clone();
        if let Some(repair) = self.chosen_repair() {
            record.allocations.clone_from(&repair.allocations);
        }
        let requests = |version: &Version| (version.record.requests.clone(), version.record.only_requested);
        if self.versions.len() > 1 && self.versions.iter().any(|version| requests(version) != requests(winner)) {
            record.unite_requests(self.versions.iter().flat_map(|version| version.record.requests.iter().cloned()));
            record.only_requested = self.versions.iter().all(|version| version.record.only_requested);
            record.show_newest_request();
        }
        let apart = self.versions.len() > 1 || !self.removals.is_empty() || self.repairs.len() > 1;
        let elsewhere = self.repairs.iter().any(|repair| repair.target != winner.wish);
        Outcome { record: Some(record), reallocate: apart || elsewhere || winner.joined }
    }

    /// Lets a write replace what it has seen, and puts it among the living.
    pub(super) fn insert(&mut self, write: &Eventual, place: Place) {
        let (wishes, repairs) = (place.believed(write.seen.index), place.believed(write.repairs.index));
        // What the log has is its own wish, or came after it.
        let stays = |author: Option<PeerId>| place.carried_out.is_some() && author.is_none();
        self.repairs
            .retain(|repair| stays(repair.author) || !write.repairs.contains(repairs, &repair.id, repair.begins));
        let (id, author, begins, reported) = (write.id(), Some(write.author), place.begins(), false);
        if let Some(index) = place.entry {
            self.last_merged = index;
        }
        let result = write.result.clone().map(|mut pin| {
            pin.timestamp = place.clamped(pin.timestamp).whole_seconds();
            (VersionId::of_wish(&pin), pin)
        });
        if let (Wish::Reallocate, Some((clamped, pin))) = (write.wish, &result) {
            if place.carried_out.is_some() {
                return;
            }
            // The record it was decided on may be newer than this clock: as it stands it is meant.
            let meant = write.result.as_ref().map(VersionId::of_wish);
            let meant = meant.filter(|meant| self.versions.iter().any(|version| version.wish == *meant));
            let (target, allocations, time) =
                (meant.unwrap_or(*clamped), pin.allocations.clone(), place.clamped(write.time));
            self.repairs.push(Repair { id, author, begins, reported, target, allocations, time });
            return;
        }
        self.versions.retain(|version| stays(version.author) || !version.is_seen(&write.seen, wishes));
        self.removals
            .retain(|removal| stays(removal.author) || !write.seen.contains(wishes, &removal.id, removal.begins));
        match (result, place.carried_out) {
            (Some(_), Some(made)) => self.name_twin(id, made),
            (None, Some(_)) => {}
            (Some((wish, record)), None) => {
                let joined = write.wish == Wish::Join;
                self.versions.push(Version { id, author, begins, reported, joined, wish, record });
            }
            (None, None) => {
                let time = place.clamped(write.time);
                self.removals.push(Removal { id, author, begins, reported, wish: write.wish, time });
            }
        }
    }

    /// Gives what the log made of an attempt the name of the eventual write of the same wish: whoever has seen that one has
    /// seen this one.
    fn name_twin(&mut self, id: VersionId, made: CarriedOut) {
        let mut of_log = self.versions.iter_mut().filter(|version| version.author.is_none());
        if let Some(twin) = of_log.find(|version| made.is(&version.wish)) {
            twin.id = id;
        }
    }

    /// The wishes of the log that it holds: in `now`, if no merge has come after that.
    pub(super) fn wishes_of_log<'a>(
        history: Option<&'a Self>,
        now: Option<&Pin>,
    ) -> impl Iterator<Item = VersionId> + use<'a> {
        let versions = history.into_iter().flat_map(|history| &history.versions);
        let of_log = versions.filter(|version| version.author.is_none()).map(|version| version.wish);
        of_log.chain([now.map_or(VersionId::ABSENT, VersionId::of_wish), VersionId::ABSENT])
    }

    /// Remembers what the merge leaves as the record.
    pub(super) fn close(&mut self, record: Option<&Pin>) {
        self.bound();
        self.left = record.map(|pin| (VersionId::of_wish(pin), VersionId::of_record(pin)));
    }

    /// Drops what comes last where there is too much; whatever was wanted has been reported by then.
    fn bound(&mut self) {
        if self.versions.len() > MAX_LIVING {
            self.versions.sort_unstable_by(|one, other| other.rank(one));
            self.versions.truncate(MAX_LIVING);
        }
        if self.removals.len() > MAX_LIVING {
            self.removals.sort_unstable_by_key(|removal| std::cmp::Reverse((removal.time, removal.id)));
            self.removals.truncate(MAX_LIVING);
        }
        if self.repairs.len() > MAX_LIVING {
            self.repairs.sort_unstable_by_key(|repair| std::cmp::Reverse(repair.rank()));
            self.repairs.truncate(MAX_LIVING);
        }
    }
}
