//! Which pins this peer's node shall hold. Pure.
//!
//! A member holds what it was given. A follower does too, unless it was told what it cares for: then it holds that,
//! whoever else does, and what names it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use cluster_types::{Cid, PeerId, Pin, PinType};
use serde::{Deserialize, Serialize};

/// The rule of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRule {
    peer: PeerId,
    filter: Option<HoldFilter>,
}

impl HoldRule {
    /// Hold what is given to `peer`, or to everybody.
    pub fn allocated_to(peer: PeerId) -> Self {
        Self { peer, filter: None }
    }

    /// Hold what a filter selects, and what is given to `peer` by its name.
    pub fn filtered(peer: PeerId, filter: HoldFilter) -> Self {
        Self { peer, filter: Some(filter).filter(|filter| *filter != HoldFilter::default()) }
    }

    /// Whether the node shall hold a pin. A meta pin is held by nobody: its shards are.
    pub fn holds(&self, pin: &Pin) -> bool {
        match &self.filter {
            None => pin.is_allocated_to(&self.peer),
            Some(filter) => pin.kind != PinType::Meta && (pin.allocations.contains(&self.peer) || filter.selects(pin)),
        }
    }
}

/// What a follower cares for: pins that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldFilter {
    /// The name fits one of these patterns, in which `*` stands for any text and `?` for any character. None: any name.
    #[serde(default)]
    pub names: Vec<String>,
    /// The metadata has each of these keys, with a value that fits the pattern.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The CID falls into this share.
    #[serde(default)]
    pub share: Option<Share>,
}

impl HoldFilter {
    /// Whether a pin meets every condition.
    pub fn selects(&self, pin: &Pin) -> bool {
        let metadata = &pin.options.metadata;
        (self.names.is_empty() || self.names.iter().any(|pattern| fits(pattern, &pin.options.name)))
            && self.metadata.iter().all(|(key, wanted)| metadata.get(key).is_some_and(|value| fits(wanted, value)))
            && self.share.is_none_or(|share| share.includes(&pin.cid))
    }
}

/// One of several equal parts of all CIDs, by their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    part: u32,
    of: NonZeroU32,
}

/// A text is not a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a share as part/parts, like 2/5")]
pub struct ShareError;

impl Share {
    /// Whether a CID falls into it.
    pub fn includes(self, cid: &Cid) -> bool {
        let hash = blake3::hash(&cid.to_bytes());
        let mut number = [0; 8];
        // The first bytes choose the shard of the pinset; these are independent of it.
        number.copy_from_slice(&hash.as_bytes()[8..16]);
        u64::from_be_bytes(number) % u64::from(self.of.get()) == u64::from(self.part - 1)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (part, of) = text.split_once('/').ok_or(ShareError)?;
        let (part, of): (u32, NonZeroU32) =
            (part.trim().parse().map_err(|_| ShareError)?, of.trim().parse().map_err(|_| ShareError)?);
        if part == 0 || part > of.get() { Err(ShareError) } else { Ok(Self { part, of }) }
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// Whether a text fits a pattern. Takes time in proportion to the product of their lengths at most.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star stands, and up to where it has swallowed the text.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[from] => (at, from) = (at + 1, from + 1),
            Some(_) | None => {
                let Some((place, swallowed)) = star else { return false };
                star = Some((place, swallowed + 1));
                (at, from) = (place + 1, swallowed + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::fakes::{cid, pin_on};

    fn named(name: &str) -> Pin {
        let mut pin = pin_on(cid(1), &[PeerId::random()]);
        pin.options.name = name.to_owned();
        pin
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("maps-*", "maps-2026", true),
            ("maps-*", "map-2026", false),
            ("*.car", "a.car.car", true),
            ("a*b*c", "axxbxxbc", true),
            ("a*b*c", "axxbxxbd", false),
            ("?", "ä", true),
            ("??", "ä", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn without_a_filter_a_peer_holds_what_it_was_given() {
        let me = PeerId::random();
        let rule = HoldRule::filtered(me, HoldFilter::default());
        assert_eq!(rule, HoldRule::allocated_to(me));
        assert!(rule.holds(&pin_on(cid(1), &[])) && rule.holds(&pin_on(cid(1), &[me])));
        assert!(!rule.holds(&named("anything")));
    }

    #[test]
    fn a_filter_selects_whoever_else_holds_it_and_what_names_this_peer_stays() {
        let me = PeerId::random();
        let metadata = BTreeMap::from([("team".to_owned(), "a*".to_owned())]);
        let rule = HoldRule::filtered(
            me,
            HoldFilter { names: vec!["maps-*".to_owned(), "x".to_owned()], metadata, share: None },
        );
        let mut wanted = named("maps-1");
        assert!(!rule.holds(&wanted), "every condition counts");
        wanted.options.metadata.insert("team".to_owned(), "alpha".to_owned());
        assert!(rule.holds(&wanted));
        assert!(!rule.holds(&pin_on(cid(1), &[])), "not even what is everywhere");
        assert!(rule.holds(&pin_on(cid(1), &[me])));
        let meta = Pin { kind: PinType::Meta, ..wanted };
        assert!(!rule.holds(&meta));
    }

    #[test]
    fn shares_divide_everything_into_equal_parts() {
        let shares: Vec<Share> = (1..=5).map(|part| format!("{part}/5").parse().unwrap()).collect();
        let mut counts = [0; 5];
        for number in 0..5_000 {
            let holders: Vec<usize> = (0..5).filter(|share| shares[*share].includes(&cid(number))).collect();
            let [holder] = holders[..] else { panic!("{number}: {holders:?}") };
            counts[holder] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        for bad in ["", "1", "0/5", "6/5", "1/0", "-1/5", "a/b"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
