//! What a write made, and for programs how it was accepted.

use cluster_types::{Commit, Timestamp};
use serde::Serialize;

use super::{Show, Table};

/// An item, and in JSON a last field `commit`. The lines for people are those of the item: scripts compare them.
#[derive(Debug, Serialize)]
pub(crate) struct WithCommit<'a, T> {
    #[serde(flatten)]
    item: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
}

impl<'a, T> WithCommit<'a, T> {
    /// `commit`: none if the peer did not say.
    pub(crate) fn new(item: &'a T, commit: Option<Commit>) -> Self {
        Self { item, commit: commit.map(|commit| commit.to_string()) }
    }
}

impl<T: Show> Show for WithCommit<'_, T> {
    fn lines(&self, now: Timestamp) -> Vec<String> {
        self.item.lines(now)
    }

    fn table(&self, now: Timestamp) -> Option<Table> {
        self.item.table(now)
    }
}
