//! The order in which a DAG is walked: depth first, every inner block once, in bounded memory. Pure.
//!
//! The walk keeps one frame per unfinished block on the way down. Frames hold the links of their block while there is
//! room for them ([`MAX_LINKS_HELD`]); the lowest ones give theirs up first and ask for the block again when the walk
//! comes back to them. Inner blocks that were expanded are remembered by a keyed 128-bit fingerprint (about 50 bytes
//! each, a few hundredths of the number of blocks of a file); leaves are not remembered, so a leaf that is linked many
//! times is looked at many times.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use cluster_types::{Cid, PinDepth};

/// Links held in all frames together, about 100 bytes each.
const MAX_LINKS_HELD: usize = 64 * 1024;
/// Unfinished blocks above each other: ten thousand times more than any directory tree has.
const MAX_FRAMES: usize = 100_000;

/// How far below a block the walk still goes; everything for `u32::MAX`.
pub(super) type Below = u32;

/// The levels below the root that a pin's depth asks for.
pub(super) fn levels(depth: PinDepth) -> Below {
    u32::try_from(depth.0).unwrap_or(Below::MAX)
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look at a block, and call [`Walk::expand`] with its links unless nothing below it is wanted.
    Visit(Cid, Below),
    /// Read an expanded block again and call [`Walk::reload`] with its links.
    Reload(Cid),
}

/// The DAG has too many unfinished blocks above each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the DAG is nested deeper than {MAX_FRAMES} blocks")]
pub(super) struct TooDeep;

/// The state of a walk.
#[derive(Debug)]
pub(super) struct Walk {
    start: Option<(Cid, Below)>,
    frames: Vec<Frame>,
    /// Frames below this place hold no links.
    loaded_from: usize,
    held: usize,
    expanded: HashMap<(u64, u64), Below>,
    keys: (RandomState, RandomState),
}

#[derive(Debug)]
struct Frame {
    cid: Cid,
    below: Below,
    next: usize,
    total: usize,
    links: Option<Vec<Cid>>,
}

impl Walk {
    /// A walk that has nowhere to go.
    pub(super) fn new() -> Self {
        Self {
            start: None,
            frames: Vec::new(),
            loaded_from: 0,
            held: 0,
            expanded: HashMap::new(),
            keys: (RandomState::new(), RandomState::new()),
        }
    }

    /// Goes on at a root, once everything before it is done; inner blocks already seen are not walked again.
    pub(super) fn begin(&mut self, root: Cid, depth: PinDepth) {
        self.start = Some((root, levels(depth)));
    }

    /// The next step; `None` when nothing is left but what the caller still has in work.
    pub(super) fn next(&mut self) -> Option<Step> {
        if let Some((root, below)) = self.start.take() {
            return Some(Step::Visit(root, below));
        }
        loop {
            let frame = self.frames.last_mut()?;
            if frame.next == frame.total {
                self.pop();
                continue;
            }
            let Some(links) = &frame.links else { return Some(Step::Reload(frame.cid)) };
            let (cid, below) = (links[frame.next], less(frame.below));
            frame.next += 1;
            if frame.next == frame.total {
                self.pop(); // Before going down, so that a long list of blocks needs no frames.
            }
            if !self.is_done(&cid, below) {
                return Some(Step::Visit(cid, below));
            }
        }
    }

    /// Takes the links of a visited block.
    pub(super) fn expand(&mut self, cid: Cid, below: Below, links: Vec<Cid>) -> Result<(), TooDeep> {
        if below == 0 || links.is_empty() || self.is_done(&cid, below) {
            return Ok(());
        }
        self.expanded.insert(self.fingerprint(&cid), below);
        if self.frames.len() == MAX_FRAMES {
            return Err(TooDeep);
        }
        self.held += links.len();
        self.frames.push(Frame { cid, below, next: 0, total: links.len(), links: Some(links) });
        while self.held > MAX_LINKS_HELD && self.loaded_from + 1 < self.frames.len() {
            let dropped = self.frames[self.loaded_from].links.take();
            self.held -= dropped.map_or(0, |links| links.len());
            self.loaded_from += 1;
        }
        Ok(())
    }

    /// Takes the links of the block that [`Step::Reload`] named.
    pub(super) fn reload(&mut self, links: Vec<Cid>) {
        let place = self.frames.len().saturating_sub(1);
        if let Some(frame) = self.frames.last_mut().filter(|frame| frame.links.is_none()) {
            frame.total = links.len().min(frame.total);
            frame.next = frame.next.min(frame.total);
            self.held += links.len();
            frame.links = Some(links);
            self.loaded_from = self.loaded_from.min(place);
        }
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.held -= frame.links.map_or(0, |links| links.len());
            self.loaded_from = self.loaded_from.min(self.frames.len());
        }
    }

    fn is_done(&self, cid: &Cid, below: Below) -> bool {
        self.expanded.get(&self.fingerprint(cid)).is_some_and(|done| *done >= below)
    }

    fn fingerprint(&self, cid: &Cid) -> (u64, u64) {
        let name = (cid.codec(), cid.hash_bytes());
        (self.keys.0.hash_one(&name), self.keys.1.hash_one(&name))
    }
}

fn less(below: Below) -> Below {
    if below == Below::MAX { Below::MAX } else { below.saturating_sub(1) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cluster_core::unixfs::CidBuilder;
    use cluster_types::Codec;

    use super::*;

    fn name(number: usize) -> Cid {
        CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::DAG_CBOR, &number.to_be_bytes())
    }

    /// Walks a DAG given as lists of links; returns the visits in order and the most links ever held.
    fn walk(dag: &BTreeMap<usize, Vec<usize>>, depth: PinDepth) -> (Vec<Cid>, usize, usize) {
        let links: BTreeMap<Cid, Vec<Cid>> =
            dag.iter().map(|(from, to)| (name(*from), to.iter().map(|to| name(*to)).collect())).collect();
        let mut walk = Walk::new();
        walk.begin(name(0), depth);
        let (mut visits, mut held, mut frames) = (Vec::new(), 0, 0);
        while let Some(step) = walk.next() {
            match step {
                Step::Visit(cid, below) => {
                    visits.push(cid);
                    walk.expand(cid, below, links.get(&cid).cloned().unwrap_or_default()).unwrap();
                }
                Step::Reload(cid) => walk.reload(links[&cid].clone()),
            }
            held = held.max(walk.held);
            frames = frames.max(walk.frames.len());
        }
        assert_eq!(walk.held, 0);
        (visits, held, frames)
    }

    #[test]
    fn a_dag_that_doubles_at_every_level_is_walked_in_linear_time() {
        let dag = (0..60).map(|level| (level, vec![level + 1, level + 1])).collect();
        assert!(walk(&dag, PinDepth::RECURSIVE).0.len() < 200);
    }

    #[test]
    fn depth_counts_levels_and_a_shorter_way_goes_deeper() {
        // 0 -> 1 -> 2 -> 3 -> 4, and 0 -> 2.
        let dag: BTreeMap<_, _> = [(0, vec![1, 2]), (1, vec![2]), (2, vec![3]), (3, vec![4])].into_iter().collect();
        let seen = |depth| walk(&dag, PinDepth(depth)).0.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(seen(0), [name(0)].into());
        assert_eq!(seen(1), [name(0), name(1), name(2)].into());
        assert_eq!(seen(2), [name(0), name(1), name(2), name(3)].into());
        assert_eq!(seen(-1).len(), 5);
    }

    #[test]
    fn a_long_list_needs_no_frames_and_wide_levels_do_not_pile_up() {
        let list = (0..10_000).map(|number| (number, vec![number + 1])).collect();
        assert_eq!(walk(&list, PinDepth::RECURSIVE).2, 1);
        // 30 levels, each with 10,000 leaves after the way down: 300,000 links, held in part.
        let mut dag = BTreeMap::new();
        for level in 0..30 {
            let mut links = vec![level + 1];
            links.extend(1_000_000 + level * 10_000..1_000_000 + (level + 1) * 10_000);
            dag.insert(level, links);
        }
        let (visits, held, _) = walk(&dag, PinDepth::RECURSIVE);
        assert_eq!(visits.into_iter().collect::<BTreeSet<_>>().len(), 30 * 10_000 + 31);
        assert!(held <= MAX_LINKS_HELD + 10_001, "{held} links were held");
    }
}
