//! The numbers of a cluster at an instant, as this peer sees them. Costs nothing: each is kept by its room.

use cluster_types::{Metric, Role};

use super::{Cluster, Standing};
use crate::monitor::REPO_SIZE;
use crate::tracker::Workload;

/// What there is and how this peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Pins shown here.
    pub pins: u64,
    /// What the tracker has to do and has done.
    pub work: Workload,
    /// Writes without a quorum that wait here, those of others included.
    pub eventual_writes: u64,
    /// What the disk informer last said, as a weight; nothing while it says nothing.
    pub disk: Option<i64>,
    /// Index of the last log entry applied here.
    pub applied: u64,
    /// What this peer is to the ordering.
    pub role: Role,
    /// What only those know who take part in the ordering.
    pub ordering: Option<OrderingFigures>,
}

/// The ordering, as a member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderingFigures {
    /// The term.
    pub term: u64,
    /// Index of the last log entry known to be on a quorum.
    pub committed: u64,
    /// How many members there are.
    pub members: u64,
    /// Whether a quorum is heard.
    pub has_quorum: bool,
    /// Log entries that are missing while the state is fetched by shards.
    pub lag_entries: u64,
}

impl Cluster {
    /// The numbers of this instant.
    pub fn figures(&self) -> Figures {
        let parts = &self.parts;
        // Not kept locked: what else is asked here looks at it, too.
        let position = parts.consensus.position().borrow().clone();
        let ordering = match &parts.standing {
            Standing::Member { log, .. } => Some(OrderingFigures {
                term: position.term,
                committed: position.committed,
                members: position.members.len() as u64,
                has_quorum: log.without_quorum_for().is_none(),
                lag_entries: log.catching_up().map_or(0, |progress| progress.lag_entries),
            }),
            Standing::Follower(_) => None,
        };
        let own = |name| parts.monitor.metrics(name).into_iter().find(|metric| metric.peer == self.peer);
        Figures {
            pins: parts.state.pins(),
            work: parts.tracker.workload(),
            eventual_writes: parts.state.waiting_count().all,
            disk: own(Metric::FREESPACE).or_else(|| own(REPO_SIZE)).map(|metric| metric.weight),
            applied: position.applied,
            role: position.role,
            ordering,
        }
    }
}
