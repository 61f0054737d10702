//! Builds openraft over any log store and any transport, and answers for [`Consensus`](super::Consensus).

mod types;

pub use types::{Answers, LogId, Node, NodeId, StoredMembership, TypeConfig};
