//! Builds openraft over any log store and any transport, and answers for [`Consensus`](super::Consensus).

mod engine;
mod membership;
mod message;
mod network;
mod position;
mod receiver;
mod state_machine;
mod types;

pub use engine::{LogConsensus, LogParts, LogSettings, StartError};
pub use membership::join_here;
pub use message::{RaftCall, RaftMessage, RaftReply};
pub use receiver::RaftReceiver;
pub use state_machine::{AppliedPosition, EffectAt, StateMachine};
pub use types::{Answers, LogId, Node, NodeId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote};

#[cfg(test)]
mod tests;
