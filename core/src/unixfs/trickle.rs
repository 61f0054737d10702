//! The shape of a file in the trickle layout: leaves first, then trees that grow.
//!
//! A tree of depth `d` holds as many leaves as a node is wide, then [`REPEATS`] trees of each depth below `d`, from 1 on; one of depth 1 has
//! leaves only. The file is a tree of a depth without end. A tree is finished when the next leaf has no place in it, so what is
//! kept is one open tree per depth: the logarithm of the file's size.

use super::file::Part;

/// Trees of the same depth below one node.
const REPEATS: usize = 4;

/// A file in the making.
pub(super) struct Trickle {
    /// The trees that are not finished, each below the one before; the first is the file.
    open: Vec<Tree>,
    /// Leaves below one node.
    width: usize,
}

struct Tree {
    /// How deep it may become; `None`: there is no end.
    depth: Option<usize>,
    parts: Vec<Part>,
}

impl Tree {
    fn new(depth: Option<usize>) -> Self {
        Self { depth, parts: Vec::new() }
    }

    /// The depth of the tree that comes next below it, when it has all its leaves.
    fn next_depth(&self, width: usize) -> Option<usize> {
        let next = 1 + (self.parts.len() - width) / REPEATS;
        self.depth.is_none_or(|depth| next < depth).then_some(next)
    }
}

impl Trickle {
    pub(super) fn new(width: usize) -> Self {
        Self { open: vec![Tree::new(None)], width }
    }

    /// Puts the next leaf in its place; `node` makes a node of the parts below it.
    pub(super) fn push(&mut self, leaf: Part, node: &mut impl FnMut(&[Part]) -> Part) {
        loop {
            let tree = self.open.last_mut().expect("the file itself is never finished here");
            if tree.parts.len() < self.width {
                tree.parts.push(leaf);
                return;
            }
            match tree.next_depth(self.width) {
                Some(depth) => self.open.push(Tree::new(Some(depth))),
                None => self.close(node),
            }
        }
    }

    /// The file, with what it has.
    pub(super) fn finish(mut self, node: &mut impl FnMut(&[Part]) -> Part) -> Part {
        while self.open.len() > 1 {
            self.close(node);
        }
        node(&self.open.pop().map(|file| file.parts).unwrap_or_default())
    }

    /// Puts the deepest open tree below the one it belongs to.
    fn close(&mut self, node: &mut impl FnMut(&[Part]) -> Part) {
        if let (Some(tree), Some(parent)) = (self.open.pop(), self.open.last_mut()) {
            parent.parts.push(node(&tree.parts));
        }
    }
}
