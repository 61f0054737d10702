//! Builds openraft over any log store and any transport, and answers for [`Consensus`](super::Consensus).

mod admission;
mod attempts;
mod authors;
mod balance;
pub mod bring_along;
mod catch_up;
mod chance;
mod deadline;
mod digests;
mod engine;
mod exchange;
mod import;
mod membership;
mod message;
mod network;
mod outbox;
mod position;
mod quorum;
mod receiver;
mod refound;
mod roster;
mod runtime;
mod settings;
mod state_machine;
mod types;
mod voters;
mod writing;

pub use balance::RegionSource;
pub use deadline::Deadline;
pub use digests::{Cause, Finding, Outcome as FindingOutcome};
pub use engine::{LogConsensus, LogParts, StartError};
pub use import::{FoundError, Founding, IMPORT_INDEX, found, import_changes};
pub use membership::join_here;
pub use message::{RaftCall, RaftMessage, RaftReply};
pub use receiver::RaftReceiver;
pub use refound::{Holdings, Refounding};
pub use roster::{MembersTold, Trouble};
#[cfg(any(test, feature = "testing"))]
pub use runtime::seed_this_thread;
pub use runtime::{Runtime, Watch};
pub use settings::{LogSettings, WithoutQuorum};
pub use state_machine::{AppliedPosition, EffectAt, StateMachine};
pub use types::{
    Answers, LogEntry, LogId, Node, NodeId, Snapshot, SnapshotContent, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

#[cfg(test)]
mod tests;
