//! How a raft node behaves, and what that means for openraft.

use std::time::Duration;

use crate::trust::Trust;

/// How a raft node behaves.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Name for logs.
    pub cluster_name: String,
    /// Most peers that vote.
    pub max_voters: usize,
    /// How long a voter may be absent before another member gets its seat.
    pub voter_grace: Duration,
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// How long a follower waits for that, at least and at most, before it calls an election.
    pub election: (Duration, Duration),
    /// How long a write without a quorum is kept trying.
    pub write_timeout: Duration,
    /// How long joining is kept trying.
    pub join_timeout: Duration,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// What becomes of a write without a quorum.
    pub without_quorum: WithoutQuorum,
    /// Whom this node lets in while it leads, beside itself.
    pub trust: Trust,
}

/// What becomes of a write when no quorum answers: the difference between the modes `raft` and `crdt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutQuorum {
    /// It is refused.
    Refuse,
    /// It is accepted here, to be merged later.
    Accept {
        /// How long a quorum has to answer.
        after: Duration,
    },
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            cluster_name: "ipfs-cluster".to_owned(),
            max_voters: 5,
            voter_grace: Duration::from_secs(600),
            // Four times the delay a busy two-core machine was seen to add; see the operations guide.
            heartbeat: Duration::from_millis(250),
            election: (Duration::from_millis(1_000), Duration::from_millis(2_000)),
            write_timeout: Duration::from_secs(15),
            join_timeout: Duration::from_secs(60),
            snapshot_every: 20_000,
            without_quorum: WithoutQuorum::Refuse,
            trust: Trust::Everyone,
        }
    }
}

/// The same for openraft.
pub(super) fn raft_config(settings: &LogSettings) -> Result<openraft::Config, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: settings.cluster_name.clone(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election.0),
        election_timeout_max: millis(settings.election.1),
        // The log gives out about a megabyte at a time, however many entries that is, so a message never gets too large.
        max_payload_entries: 16,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(settings.snapshot_every),
        replication_lag_threshold: settings.snapshot_every * 2,
        max_in_snapshot_log_to_keep: settings.snapshot_every,
        install_snapshot_timeout: 3_600_000,
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected again. It may have sent entries that it had not flushed itself; going
        // on in its old term it would fill their places with other entries.
        enable_leader_restore: Some(false),
        // A follower whose folder was restored from a backup has less than it had: it gets the rest again. Without
        // this its leader would fail.
        allow_log_reversion: Some(true),
        ..openraft::Config::default()
    }
    .validate()
}
