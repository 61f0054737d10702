//! What the watch found, for people. Pure.

use std::collections::VecDeque;
use std::fmt;

use cluster_types::{PeerId, Timestamp};

/// Findings that are kept; the oldest that are done with give way. One for each shard fits.
const KEPT: usize = 4096 + 256;

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The records of a shard do not add up to its sum: they were changed behind this peer's back.
    DoesNotAddUp,
    /// Peers have different root digests at the same log index.
    Differs,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The shard is as a majority of the voters has it.
    Repaired {
        /// How many records were put right.
        records: usize,
    },
    /// Nothing was changed; it is tried again.
    Unresolved {
        /// Why nothing was changed.
        reason: String,
    },
    /// It is the other peer's to repair.
    Theirs,
}

/// Something that is not, or was not, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose pinset it is about.
    pub peer: PeerId,
    /// The shard, if it is known.
    pub shard: Option<u16>,
    /// The log index as of which it was found.
    pub index: u64,
    /// How it was found.
    pub cause: Cause,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was found.
    pub found_at: Timestamp,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard {
            Some(shard) => write!(f, "shard {shard} at log index {}: ", self.index)?,
            None => write!(f, "log index {}: ", self.index)?,
        }
        f.write_str(match self.cause {
            Cause::DoesNotAddUp => "its records did not add up to its digest; ",
            Cause::Differs => "the digest differs between peers; ",
        })?;
        match &self.outcome {
            Outcome::Repaired { records } => write!(f, "repaired from the others ({records} records)"),
            Outcome::Unresolved { reason } => write!(f, "not repaired: {reason}"),
            Outcome::Theirs => f.write_str("this peer is with the majority, and the other one is to repair itself"),
        }
    }
}

/// The findings of a peer.
#[derive(Debug, Default)]
pub(super) struct Findings(VecDeque<Finding>);

impl Findings {
    /// Keeps a finding, in the place of what is unresolved of the same; tells whether it says something new.
    pub(super) fn put(&mut self, mut finding: Finding) -> bool {
        let same = |kept: &Finding| kept.peer == finding.peer && kept.shard == finding.shard && !kept.is_done();
        let before = self.0.iter().position(same).and_then(|place| self.0.remove(place));
        let news = before.as_ref().is_none_or(|before| before.outcome != finding.outcome);
        if let Some(before) = before {
            finding.found_at = before.found_at;
            finding.cause = before.cause;
        }
        self.0.push_front(finding);
        if self.0.len() > KEPT {
            let oldest = self.0.iter().rposition(Finding::is_done);
            self.0.remove(oldest.unwrap_or(KEPT));
        }
        news
    }

    pub(super) fn clear_shard(&mut self, shard: u16) {
        self.0.retain(|kept| kept.is_done() || kept.shard != Some(shard));
    }

    pub(super) fn clear_peer(&mut self, peer: &PeerId) {
        self.0.retain(|kept| kept.outcome != Outcome::Theirs || kept.peer != *peer);
    }

    pub(super) fn unresolved(&self) -> Vec<(u16, Cause)> {
        let unresolved = self.0.iter().filter(|kept| matches!(kept.outcome, Outcome::Unresolved { .. }));
        unresolved.filter_map(|kept| Some((kept.shard?, kept.cause))).collect()
    }

    pub(super) fn all(&self) -> Vec<Finding> {
        self.0.iter().cloned().collect()
    }
}

impl Finding {
    fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Repaired { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(shard: u16, outcome: Outcome, second: i64) -> Finding {
        let found_at = Timestamp::from_unix_seconds(second);
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        Finding { peer, shard: Some(shard), index: 7, cause: Cause::DoesNotAddUp, outcome, found_at }
    }

    #[test]
    fn a_repair_takes_the_place_of_what_was_unresolved_and_stays() {
        let unresolved = || Outcome::Unresolved { reason: "nobody answers".to_owned() };
        let mut findings = Findings::default();
        assert!(findings.put(finding(3, unresolved(), 1)));
        assert!(!findings.put(finding(3, unresolved(), 2)), "it is said once");
        assert_eq!(findings.unresolved(), [(3, Cause::DoesNotAddUp)]);
        assert!(findings.put(finding(3, Outcome::Repaired { records: 2 }, 3)));
        assert_eq!(findings.all(), [finding(3, Outcome::Repaired { records: 2 }, 1)], "since when it was wrong");
        findings.clear_shard(3);
        assert_eq!(findings.all().len(), 1);
        let text = findings.all()[0].to_string();
        let told =
            "shard 3 at log index 7: its records did not add up to its digest; repaired from the others (2 records)";
        assert_eq!(text, told);
    }

    #[test]
    fn findings_are_bounded_and_what_is_unresolved_stays() {
        let mut findings = Findings::default();
        findings.put(finding(9, Outcome::Unresolved { reason: String::new() }, 0));
        for second in 0..10_000 {
            findings.put(finding(1, Outcome::Repaired { records: 1 }, second));
        }
        assert_eq!(findings.all().len(), KEPT);
        assert_eq!(findings.unresolved(), [(9, Cause::DoesNotAddUp)]);
    }
}
