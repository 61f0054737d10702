//! Who may ask what. Exhaustive on purpose: a new call does not compile until it has a rule here.

use super::wire::Call;

/// Who a call is answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any peer that knows the cluster's secret.
    Open,
    /// Any peer that the asked one trusts, but only few such calls in a while: they cost the members log entries.
    Newcomers,
    /// Members of the cluster only: what belongs to the ordering, in which every member counts the same.
    Members,
    /// Members that the asked one trusts: what shows or moves its own node.
    TrustedMembers,
}

/// The rule for a call.
pub fn access(call: &Call) -> Access {
    match call {
        // A peer that was removed while it was away asks who the members are; it changes nothing.
        Call::Id | Call::Members => Access::Open,
        // Who founds a cluster together does not know yet who the members will be; it changes nothing.
        Call::Gather { .. } => Access::Open,
        // A peer that wants to join is not a member yet.
        Call::Reserve | Call::Join { .. } | Call::Meet { .. } => Access::Newcomers,
        // Followers are outside of the membership. They only read, and what each peer may have read at a time is bounded
        // where it is answered, after what members ask.
        Call::Shards(_) | Call::Manifest { .. } => Access::Open,
        Call::Removed { .. }
        | Call::Submit { .. }
        | Call::ReadIndex
        | Call::JoinFor { .. }
        | Call::RemovePeer { .. }
        | Call::Outbox { .. }
        | Call::Noted { .. } => Access::Members,
        Call::Status { .. }
        | Call::Statuses { .. }
        | Call::StatusPage { .. }
        | Call::Recover { .. }
        | Call::RecoverPage { .. }
        | Call::PutBlocks { .. }
        | Call::Blocks { .. }
        | Call::CollectGarbage
        | Call::Node
        | Call::RepoStat => Access::TrustedMembers,
    }
}
