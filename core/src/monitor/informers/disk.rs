//! How much room the IPFS node has.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{BoxError, Metric, RepoStat};

use crate::monitor::informer::{Informer, Reading};
use crate::ports::IpfsNode;

/// The name of the metric of bytes used.
pub(crate) const REPO_SIZE: &str = "reposize";

/// What is told of the node's repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskMetric {
    /// Bytes free; more is better. Nothing is told when none is left.
    #[default]
    FreeSpace,
    /// Bytes used; less is better.
    RepoSize,
}

/// Tells `freespace` or `reposize`.
pub struct DiskInformer {
    node: Arc<dyn IpfsNode>,
    metric: DiskMetric,
    ttl: Duration,
}

impl DiskInformer {
    /// An informer on `node`.
    pub fn new(node: Arc<dyn IpfsNode>, metric: DiskMetric, ttl: Duration) -> Self {
        Self { node, metric, ttl }
    }
}

impl fmt::Debug for DiskInformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskInformer").field("metric", &self.metric).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

#[async_trait]
impl Informer for DiskInformer {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn measure(&self) -> Result<Vec<Reading>, BoxError> {
        let stat = self.node.repo_stat().await?;
        Ok(reading(self.metric, stat).into_iter().collect())
    }
}

fn reading(metric: DiskMetric, stat: RepoStat) -> Option<Reading> {
    let (name, bytes) = match metric {
        DiskMetric::FreeSpace => (Metric::FREESPACE, stat.storage_max.saturating_sub(stat.repo_size)),
        DiskMetric::RepoSize => (REPO_SIZE, stat.repo_size),
    };
    if metric == DiskMetric::FreeSpace && bytes == 0 {
        return None;
    }
    let number = i64::try_from(bytes).unwrap_or(i64::MAX);
    let weight = if metric == DiskMetric::RepoSize { -number } else { number };
    Some(Reading { name: name.to_owned(), value: bytes.to_string(), weight, partitionable: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_weighs_for_a_peer_and_used_space_against_it() {
        let stat = RepoStat { repo_size: 30, storage_max: 100 };
        let free = reading(DiskMetric::FreeSpace, stat).unwrap();
        assert_eq!((free.name.as_str(), free.value.as_str(), free.weight), ("freespace", "70", 70));
        let used = reading(DiskMetric::RepoSize, stat).unwrap();
        assert_eq!((used.name.as_str(), used.value.as_str(), used.weight), ("reposize", "30", -30));
    }

    #[test]
    fn a_full_node_says_nothing_of_its_free_space() {
        assert_eq!(reading(DiskMetric::FreeSpace, RepoStat { repo_size: 101, storage_max: 100 }), None);
    }
}
