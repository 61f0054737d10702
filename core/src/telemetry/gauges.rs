//! What a cluster looks like when somebody asks.

use std::fmt;
use std::sync::Arc;

use cluster_types::Role;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;

use crate::cluster::{Cluster, Figures, OrderingFigures};
use crate::tracker::Workload;

/// Every role, as a label.
const ROLES: [Role; 4] = [Role::Leader, Role::Voter, Role::Learner, Role::Follower];

/// Reads the figures of a cluster whenever somebody asks.
#[derive(Debug)]
pub struct ClusterGauges {
    cluster: Arc<Cluster>,
}

impl ClusterGauges {
    /// The figures of `cluster`.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Collector for ClusterGauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&self.cluster.figures(), encoder)
    }
}

fn encode(figures: &Figures, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut gauge = |name, help, value| write(&mut encoder, name, help, &value);
    let Workload { queued, pinning, failed, pinned } = figures.work;
    gauge("pins", "Total number of cluster pins.", figures.pins)?;
    gauge("pins_pin_queued", "Current number of pins queued for pinning.", queued)?;
    gauge("pins_pinning", "Current number of pins being pinned.", pinning)?;
    gauge("pins_pin_error", "Current number of pins in pin_error state.", failed)?;
    gauge("pins_ipfs_pins", "Current number of items pinned on IPFS for the cluster.", pinned)?;
    gauge("eventual_writes", "Writes accepted without a quorum that wait here to be merged.", figures.eventual_writes)?;
    gauge("applied_index", "Index of the last log entry applied here.", figures.applied)?;
    if let Some(OrderingFigures { term, committed, members, has_quorum, lag_entries }) = figures.ordering {
        gauge("raft_term", "Term of the ordering.", term)?;
        gauge("committed_index", "Index of the last log entry known here to be on a quorum.", committed)?;
        gauge("members", "Members of the cluster, this peer included.", members)?;
        gauge("quorum", "1 while this peer hears a quorum, else 0.", u64::from(has_quorum))?;
        gauge("catchup_lag_entries", "Log entries missing here while the state is fetched by shards.", lag_entries)?;
    }
    if let Some(disk) = figures.disk {
        write(&mut encoder, "informer_disk", "The metric value weight issued by the disk informer.", &disk)?;
    }
    let mut roles =
        encoder.encode_descriptor("role", "1 for what this peer is to the ordering.", None, MetricType::Gauge)?;
    for role in ROLES {
        let is = u64::from(role == figures.role);
        roles.encode_family(&[("role", role.to_string())])?.encode_gauge(&is)?;
    }
    Ok(())
}

fn write(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Fixed(Figures);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&self.0, encoder)
        }
    }

    fn shown(figures: Figures) -> Vec<String> {
        let (mut registry, mut text) = (Registry::with_prefix("ipfscluster"), String::new());
        registry.register_collector(Box::new(Fixed(figures)));
        encode_registry(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_member_shows_what_it_holds_and_how_it_stands() {
        let ordering = OrderingFigures { term: 8, committed: 9, members: 10, has_quorum: true, lag_entries: 11 };
        let figures = Figures {
            pins: 1,
            work: Workload { queued: 2, pinning: 3, failed: 4, pinned: 5 },
            eventual_writes: 6,
            disk: Some(-12),
            applied: 7,
            role: Role::Leader,
            ordering: Some(ordering),
        };
        let expected = "pins 1,pins_pin_queued 2,pins_pinning 3,pins_pin_error 4,pins_ipfs_pins 5,eventual_writes 6,\
                        applied_index 7,raft_term 8,committed_index 9,members 10,quorum 1,catchup_lag_entries 11,\
                        informer_disk -12,role{role=\"leader\"} 1,role{role=\"voter\"} 0,role{role=\"learner\"} 0,\
                        role{role=\"follower\"} 0";
        assert_eq!(shown(figures), expected.split(',').map(|line| format!("ipfscluster_{line}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_follower_does_not_know_is_left_out() {
        let lines = shown(Figures { role: Role::Follower, ..Figures::default() });
        let unknown = |line: &&String| ["quorum", "raft_term", "informer_disk"].iter().any(|name| line.contains(name));
        assert_eq!(lines.iter().find(unknown), None);
        assert!(lines.contains(&"ipfscluster_role{role=\"follower\"} 1".to_owned()), "{lines:?}");
    }
}
