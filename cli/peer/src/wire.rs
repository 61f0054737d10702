//! Configuration to adapters: every translation from a checked section to what a package wants to be told.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use cluster_api::{Credentials, RestConfig, TlsFiles};
use cluster_core::consensus::log::{LogSettings, RegionSource, WithoutQuorum};
use cluster_core::monitor::{DiskInformer, DiskMetric, Informer, Monitor, MonitorConfig, QueueInformer, TagsInformer};
use cluster_core::ports::{IpfsNode, TrackerStore};
use cluster_core::task::TaskGroup;
use cluster_core::tracker::{PriorityRule, TrackerConfig};
use cluster_ipfs::embedded::{EmbeddedConfig, EmbeddedNode};
use cluster_ipfs::kubo::{Kubo, KuboConfig};
use cluster_net::NetworkConfig;
use cluster_store::BlockStore;
use cluster_types::BoxError;

use crate::config::{self, Config, ConsensusMode, IpfsConfig};

/// File of the embedded node's key, inside the configuration folder.
const NODE_KEY: &str = "embedded_node.key";
/// The metric that says where a peer stands: the tag `region` of `informer.tags`.
const REGION_TAG: &str = "tag:region";
/// How long a Kubo may take to say who it is.
const NODE_ANSWER: Duration = Duration::from_secs(5);

pub(crate) fn network(config: &Config) -> Result<NetworkConfig, BoxError> {
    let cluster = &config.cluster;
    let secret = match &cluster.secret {
        Some(secret) => Some(cluster_net::ClusterSecret::from_hex(&secret.to_hex())?),
        None => None,
    };
    let mut network = NetworkConfig::new(
        config::load_identity(&config.folder, &cluster.identity)?,
        secret,
        cluster.listen_addresses.clone(),
    );
    network.announce = cluster.announce_addresses.clone();
    network.no_announce = cluster.no_announce_addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    network.cluster_name = config.consensus.cluster_name.clone();
    network.mdns_interval = cluster.mdns_interval.unwrap_or_default();
    network.peerstore = Some(cluster.peerstore_file.clone());
    network.dial_timeout = cluster.dial_timeout;
    network.max_connections = u32::try_from(cluster.connections.high_water).unwrap_or(u32::MAX);
    Ok(network)
}

/// The node this peer looks after, and the block store to close after it.
pub(crate) async fn ipfs_node(
    config: &Config,
    tasks: &TaskGroup,
) -> Result<(Arc<dyn IpfsNode>, Option<Arc<BlockStore>>), BoxError> {
    match &config.ipfs {
        IpfsConfig::Kubo(kubo) => Ok((Kubo::new(kubo_config(kubo))?, None)),
        IpfsConfig::Embedded(embedded) => {
            let blocks = BlockStore::open(&config.state_folder)?;
            let mut settings = EmbeddedConfig::new(config.folder.file(NODE_KEY));
            settings.listen = embedded.listen_addresses.clone();
            settings.storage_max = embedded.storage_max.0;
            settings.stall_timeout = embedded.pin_timeout;
            let node = EmbeddedNode::start(settings, Arc::clone(&blocks) as _, tasks).await?;
            Ok((node, Some(blocks)))
        }
    }
}

fn kubo_config(kubo: &config::KuboConfig) -> KuboConfig {
    KuboConfig {
        endpoint: kubo.node_address.clone(),
        request_timeout: kubo.request_timeout,
        pin_timeout: kubo.pin_timeout,
        unpin_timeout: kubo.unpin_timeout,
        repogc_timeout: kubo.repo_gc_timeout,
        unpin_disable: kubo.unpin_disabled,
    }
}

/// Whether a Kubo answers at once.
pub async fn node_answers(kubo: &config::KuboConfig) -> bool {
    let Ok(node) = Kubo::new(kubo_config(kubo)) else { return false };
    tokio::time::timeout(NODE_ANSWER, node.id()).await.is_ok_and(|answer| answer.is_ok())
}

pub(crate) fn informers(
    config: &config::InformersConfig,
    node: &Arc<dyn IpfsNode>,
    tracker: &Arc<dyn TrackerStore>,
) -> Vec<Box<dyn Informer>> {
    let mut informers: Vec<Box<dyn Informer>> = Vec::new();
    if let Some(disk) = &config.disk {
        let metric = match disk.metric {
            config::DiskMetric::FreeSpace => DiskMetric::FreeSpace,
            config::DiskMetric::RepoSize => DiskMetric::RepoSize,
        };
        informers.push(Box::new(DiskInformer::new(Arc::clone(node), metric, disk.ttl)));
    }
    if let Some(tags) = &config.tags {
        informers.push(Box::new(TagsInformer::new(tags.tags.clone(), tags.ttl)));
    }
    if let Some(queue) = &config.queue {
        informers.push(Box::new(QueueInformer::new(Arc::clone(tracker), queue.weight_bucket_size, queue.ttl)));
    }
    informers
}

pub(crate) fn monitor(config: &Config) -> MonitorConfig {
    let connect_swarms = match &config.ipfs {
        IpfsConfig::Kubo(kubo) => kubo.connect_swarms_delay,
        IpfsConfig::Embedded(_) => MonitorConfig::default().connect_swarms,
    };
    MonitorConfig {
        ping_interval: config.cluster.ping_interval,
        check_interval: config.monitor.check_interval,
        connect_swarms,
    }
}

pub(crate) fn consensus(config: &Config) -> LogSettings {
    let timings = &config.consensus.timings;
    let mut settings = LogSettings {
        cluster_name: config.consensus.cluster_name.clone(),
        max_voters: config.consensus.max_voters,
        voter_grace: config.consensus.voter_grace,
        heartbeat: timings.heartbeat_interval,
        election: (timings.election_timeout_min, timings.election_timeout_max),
        snapshot_every: u64::try_from(config.consensus.snapshot_threshold).unwrap_or(u64::MAX),
        ..LogSettings::default()
    };
    match &config.consensus.mode {
        ConsensusMode::Raft { leader_timeout, .. } => settings.write_timeout = *leader_timeout,
        ConsensusMode::Crdt { commit_timeout, .. } => {
            settings.without_quorum = WithoutQuorum::Accept { after: *commit_timeout };
        }
    }
    settings
}

/// Where peers stand, by their `region` tags, for the spread of the voters.
pub(crate) fn regions(monitor: &Arc<Monitor>) -> RegionSource {
    let monitor = Arc::clone(monitor);
    Arc::new(move || {
        let tags = monitor.metrics(REGION_TAG).into_iter();
        tags.filter(|tag| !tag.value.is_empty()).map(|tag| (tag.peer, tag.value)).collect()
    })
}

pub(crate) fn priority(config: &config::TrackerConfig) -> PriorityRule {
    PriorityRule { max_age: config.priority_max_age, max_retries: config.priority_max_retries }
}

pub(crate) fn tracker(config: &Config) -> TrackerConfig {
    TrackerConfig {
        concurrent_pins: NonZeroUsize::new(config.tracker.concurrent_pins).unwrap_or(NonZeroUsize::MIN),
        priority: priority(&config.tracker),
        pin_recover_interval: config.cluster.pin_recover_interval,
        ..TrackerConfig::default()
    }
}

pub(crate) fn rest(config: &config::HttpApiConfig) -> RestConfig {
    let default = RestConfig::default();
    RestConfig {
        listen: config.listen_addresses.clone(),
        read_header_timeout: config.timeouts.read_header.unwrap_or(default.read_header_timeout),
        idle_timeout: config.timeouts.idle.unwrap_or(default.idle_timeout),
        max_header_bytes: config.max_header_bytes,
        tls: config.tls.clone().map(|(certificate, key)| TlsFiles { certificate, key }),
        credentials: config.basic_auth.as_ref().map(|users| {
            Credentials(users.iter().map(|(user, word)| (user.clone(), word.reveal().to_owned())).collect())
        }),
        allowed_hosts: config.allowed_hosts.clone(),
        allowed_origins: config.cors.allowed_origins.clone(),
        allowed_methods: config.cors.allowed_methods.clone(),
        headers: config.headers.clone(),
        ..default
    }
}
