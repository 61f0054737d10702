//! Waits for a cluster to be as a test wants it.

use cluster_types::{Metric, StateReport};

use crate::process::{ProcessCluster, SETTLE_LIMIT, START_LIMIT};
use crate::wait;

impl ProcessCluster {
    /// Waits until `wanted` peers vote (as many as can, for an odd number).
    pub async fn wait_voters(&self, wanted: usize) {
        let wanted = if wanted.is_multiple_of(2) { wanted.saturating_sub(1) } else { wanted };
        wait::until("all voters", START_LIMIT, || async {
            let mut voters = 0;
            for number in 0..self.peers.len() {
                use cluster_types::Role;
                let state = self.state(number).await.map_err(|error| error.to_string())?;
                voters += usize::from(matches!(state.role, Role::Leader | Role::Voter));
            }
            if voters >= wanted { Ok(()) } else { Err(format!("{voters} of {wanted}")) }
        })
        .await;
    }

    /// Waits until every peer knows the free space of `wanted` peers: until then it would refuse to allocate.
    pub async fn wait_metrics(&self, wanted: usize) {
        wait::until("the metrics of all peers", START_LIMIT, || async {
            for number in 0..self.peers.len() {
                let metrics: Vec<Metric> =
                    self.get(number, "/monitor/metrics/freespace").await.map_err(|error| format!("{error:#}"))?;
                if metrics.len() < wanted {
                    return Err(format!("peer {number} knows {} of {wanted}", metrics.len()));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Waits until all running peers have applied the same entries and nobody has writes that are not merged, and returns
    /// their digest, which must be the same.
    pub async fn wait_equal(&self) -> StateReport {
        let running: Vec<usize> = (0..self.peers.len()).filter(|number| self.is_running(*number)).collect();
        let running = &running;
        let states = wait::until("equal positions", SETTLE_LIMIT, || async {
            let mut states = Vec::new();
            for number in running {
                states.push(self.state(*number).await.map_err(|error| format!("peer {number}: {error:#}"))?);
            }
            let same = states.iter().all(|state| {
                (state.applied_index, state.committed_index, state.eventual)
                    == (states[0].applied_index, states[0].committed_index, 0)
            });
            if same { Ok(states) } else { Err(format!("{states:?}")) }
        })
        .await;
        for state in &states {
            assert_eq!(state.digest, states[0].digest, "peers at one index hold different states: {states:?}");
        }
        states[0].clone()
    }
}
