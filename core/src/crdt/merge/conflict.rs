//! Who lost by a merge: what the event log is told.

use std::fmt;

use cluster_types::{Cid, PeerId, Pin, Timestamp};

use super::history::{History, Removal, Repair, Version};
use super::write::Wish;

/// Why one side of a conflict won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Somebody still wants what somebody else removed.
    PinBeatsUnpin,
    /// Of two pins the newer one; at the same second the one whose canonical bytes are greater.
    NewerPin,
    /// Of two pins the one that keeps more: sharded content before plain, the whole DAG before its root.
    DeeperPin,
    /// A repair keeps nothing that was removed.
    UnpinBeatsRepair,
    /// Of two repairs that of the log, then the newer.
    NewerRepair,
}

impl Rule {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PinBeatsUnpin => "pin-beats-unpin",
            Self::NewerPin => "newer-pin",
            Self::DeeperPin => "deeper-pin",
            Self::UnpinBeatsRepair => "unpin-beats-repair",
            Self::NewerRepair => "newer-repair",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Who wrote it; `None`: it was in the log.
    pub author: Option<PeerId>,
    /// What it was for.
    pub wish: Wish,
    /// When; zero where it is not known.
    pub time: Timestamp,
    /// The record it wanted; `None`: none.
    pub record: Option<Pin>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.wish)?;
        match self.author {
            Some(author) => write!(f, " by {author}")?,
            None => f.write_str(" in the log")?,
        }
        if self.time.is_zero() { Ok(()) } else { write!(f, " at {}", self.time.whole_seconds()) }
    }
}

/// Two writes were made apart and only one of them could be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The pin.
    pub cid: Cid,
    /// What stands.
    pub winner: Party,
    /// What does not; its record is whole, so that it can be asked for again.
    pub loser: Party,
    /// Why.
    pub rule: Rule,
    /// Whether the write that brought it up is older than what the cluster remembers of merges.
    pub stale: bool,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: kept the {}, not the {} ({}", self.cid, self.winner, self.loser, self.rule)?;
        f.write_str(if self.stale { ", stale)" } else { ")" })
    }
}

impl From<&Version> for Party {
    fn from(version: &Version) -> Self {
        Self {
            author: version.author,
            wish: if version.joined { Wish::Join } else { Wish::Pin },
            time: version.record.timestamp,
            record: Some(version.record.clone()),
        }
    }
}

impl From<&Removal> for Party {
    fn from(removal: &Removal) -> Self {
        Self { author: removal.author, wish: removal.wish, time: removal.time, record: None }
    }
}

impl From<&Repair> for Party {
    fn from(repair: &Repair) -> Self {
        Self { author: repair.author, wish: Wish::Reallocate, time: repair.time, record: None }
    }
}

/// Finds who has lost by now and was not reported yet, and marks them as reported.
pub(super) fn report(history: &mut History, cid: Cid, stale: bool) -> Vec<Conflict> {
    let winner = history.winner().cloned();
    let chosen = history.chosen_repair().cloned();
    let mut conflicts = Vec::new();
    let mut tell = |winner: Party, loser: Party, rule| conflicts.push(Conflict { cid, winner, loser, rule, stale });
    let Some(winner) = winner else {
        let last = history.removals.iter().max_by_key(|removal| (removal.time, removal.id)).cloned();
        for repair in history.repairs.iter_mut().filter(|repair| repair.author.is_some() && !repair.reported) {
            repair.reported = true;
            if let Some(removal) = &last {
                tell(removal.into(), (&*repair).into(), Rule::UnpinBeatsRepair);
            }
        }
        return conflicts;
    };
    for version in history.versions.iter_mut().filter(|version| !version.reported && !version.agrees_with(&winner)) {
        version.reported = true;
        let rule = if version.reach() == winner.reach() { Rule::NewerPin } else { Rule::DeeperPin };
        tell((&winner).into(), (&*version).into(), rule);
    }
    for removal in history.removals.iter_mut().filter(|removal| !removal.reported && removal.wish == Wish::Unpin) {
        removal.reported = true;
        tell((&winner).into(), (&*removal).into(), Rule::PinBeatsUnpin);
    }
    let Some(chosen) = chosen else { return conflicts };
    for repair in history.repairs.iter_mut().filter(|repair| repair.author.is_some() && !repair.reported) {
        if repair.target == chosen.target && repair.allocations != chosen.allocations {
            repair.reported = true;
            tell((&chosen).into(), (&*repair).into(), Rule::NewerRepair);
        }
    }
    conflicts
}
