//! Builds openraft over any log store and any transport, and answers for [`Consensus`](super::Consensus).

mod catch_up;
mod chance;
mod engine;
mod membership;
mod message;
mod network;
mod position;
mod receiver;
mod runtime;
mod state_machine;
mod types;

pub use engine::{LogConsensus, LogParts, LogSettings, StartError};
pub use membership::join_here;
pub use message::{RaftCall, RaftMessage, RaftReply};
pub use receiver::RaftReceiver;
#[cfg(any(test, feature = "testing"))]
pub use runtime::seed_this_thread;
pub use runtime::{Runtime, Watch};
pub use state_machine::{AppliedPosition, EffectAt, StateMachine};
pub use types::{
    Answers, LogId, Node, NodeId, Snapshot, SnapshotContent, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

#[cfg(test)]
mod tests;
