//! Configuration to adapters: every translation from a checked section to what a package wants to be told.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use cluster_api::{CorsRules, Credentials, ProxyConfig, RestConfig, TlsFiles};
use cluster_core::consensus::log::{LogSettings, RegionSource, WithoutQuorum};
use cluster_core::monitor::{DiskInformer, DiskMetric, Informer, Monitor, MonitorConfig, QueueInformer, TagsInformer};
use cluster_core::ports::{IpfsNode, TrackerStore};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_core::tracker::{PriorityRule, TrackerConfig};
use cluster_core::trust::Holders;
use cluster_core::watch;
use cluster_ipfs::embedded::rpc::{self, RpcConfig};
use cluster_ipfs::embedded::{EmbeddedConfig, EmbeddedNode};
use cluster_ipfs::kubo::{Kubo, KuboConfig};
use cluster_net::{GossipSettings, NetworkConfig, TrimRule};
use cluster_store::BlockStore;
use cluster_types::{BoxError, Multiaddr, Protocol};

use crate::config::{self, Config, ConsensusMode, IpfsConfig};
use crate::following;
use crate::tokens::FolderTokens;

/// File of the embedded node's key, inside the configuration folder.
const NODE_KEY: &str = "embedded_node.key";
/// Socket of the embedded node's RPC, inside the configuration folder.
const NODE_SOCKET: &str = "ipfs-api.sock";
/// The metric that says where a peer stands: the tag `region` of `informer.tags`.
const REGION_TAG: &str = "tag:region";
/// Connections beyond the high water are closed only after the grace period; so many times as many are refused at once.
const BEYOND_HIGH_WATER: usize = 8;
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
    network.no_announce = cluster.no_announce_addresses.clone();
    network.cluster_name = config.consensus.cluster_name.clone();
    network.mdns_interval = cluster.mdns_interval.unwrap_or_default();
    network.peerstore = Some(cluster.peerstore_file.clone());
    network.dial_timeout = cluster.dial_timeout;
    network.max_connections = most_connections(cluster, rlimit::getrlimit(rlimit::Resource::NOFILE)?.0);
    network.trim = TrimRule {
        high_water: cluster.connections.high_water,
        low_water: cluster.connections.low_water,
        grace_period: cluster.connections.grace_period,
    };
    network.gossip = GossipSettings {
        seen_messages_ttl: cluster.pubsub.seen_messages_ttl,
        heartbeat_interval: cluster.pubsub.heartbeat_interval,
        degree_factor: cluster.pubsub.degree_factor,
        history_gossip: cluster.pubsub.history_gossip,
        history_length: cluster.pubsub.history_length,
        flood_publish: cluster.pubsub.flood_publish,
    };
    Ok(network)
}

/// How many connections there may be at all, while too many of them wait to be trimmed: several times the high water, and no
/// more than the file descriptors that `resource_manager` leaves them, half of the `descriptors` of the process if it says
/// nothing.
fn most_connections(cluster: &config::ClusterConfig, descriptors: u64) -> u32 {
    let many = cluster.connections.high_water.saturating_mul(BEYOND_HIGH_WATER);
    let many = u32::try_from(many).unwrap_or(u32::MAX);
    let limits = &cluster.resources;
    if !limits.enabled {
        return many;
    }
    let left = if limits.file_descriptors == 0 { descriptors / 2 } else { limits.file_descriptors };
    many.min(u32::try_from(left).unwrap_or(u32::MAX))
}

/// Has the informers of `monitor` announce after every so many changes of what the node holds, if the configuration asks
/// for that. The monitor announces at most once in two seconds.
pub(crate) fn announce_changes(
    config: &Config,
    changes: Option<watch::Receiver<u64>>,
    monitor: &Arc<Monitor>,
    tasks: &TaskGroup,
) {
    let (IpfsConfig::Kubo(kubo), Some(changes)) = (&config.ipfs, changes) else { return };
    let Some(every) = NonZeroU64::new(kubo.informer_trigger_interval) else { return };
    let (monitor, stop) = (Arc::clone(monitor), tasks.stop_token());
    tasks.spawn("informer trigger", OnExit::StopPeer, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok::<(), BoxError>(()),
            watch::Gone = after_every(every, changes, || monitor.announce()) => Err("the node counts no more".into()),
        }
    });
}

/// Announces whenever so many changes have come since the last time; ends with the counter.
async fn after_every(every: NonZeroU64, mut changes: watch::Receiver<u64>, announce: impl Fn()) -> watch::Gone {
    let mut told = *changes.borrow();
    loop {
        if let Err(gone) = changes.wait_for(|count| count.saturating_sub(told) >= every.get()).await {
            return gone;
        }
        told = *changes.borrow();
        announce();
    }
}

/// The node this peer looks after.
pub(crate) struct Node {
    pub(crate) ipfs: Arc<dyn IpfsNode>,
    /// The block store to close after it.
    pub(crate) blocks: Option<Arc<BlockStore>>,
    /// How often what it holds was changed.
    pub(crate) changes: Option<watch::Receiver<u64>>,
}

/// Starts or reaches the node of the configuration.
pub(crate) async fn ipfs_node(config: &Config, tasks: &TaskGroup) -> Result<Node, BoxError> {
    match &config.ipfs {
        IpfsConfig::Kubo(kubo) => {
            let node = Kubo::new(kubo_config(kubo))?;
            let changes = Some(node.changes());
            Ok(Node { ipfs: node, blocks: None, changes })
        }
        IpfsConfig::Embedded(embedded) => {
            let blocks = BlockStore::open(&config.state_folder)?;
            let mut settings = EmbeddedConfig::new(config.folder.file(NODE_KEY));
            settings.listen = embedded.listen_addresses.clone();
            settings.storage_max = embedded.storage_max.0;
            settings.storage_gc_watermark = embedded.storage_gc_watermark;
            settings.stall_timeout = embedded.pin_timeout;
            let node = EmbeddedNode::start(settings, Arc::clone(&blocks) as _, tasks).await?;
            let served = RpcConfig {
                socket: config.folder.file(NODE_SOCKET),
                listen: embedded.rpc_listen_addresses.clone(),
                repository: config.state_folder.clone(),
            };
            rpc::serve(Arc::clone(&node), served, tasks).await?;
            Ok(Node { ipfs: node, blocks: Some(blocks), changes: None })
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
        trust: following::trust(config),
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

/// To whom pins are given.
pub(crate) fn holders(config: &config::ClusterConfig) -> Holders {
    match (config.pin_only_on_trusted_peers, config.pin_only_on_untrusted_peers) {
        (true, _) => Holders::Trusted,
        (false, true) => Holders::Untrusted,
        (false, false) => Holders::All,
    }
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

/// The REST API or the pinning service; `tokens` are its own.
pub(crate) fn http_api(config: &config::HttpApiConfig, tokens: FolderTokens) -> RestConfig {
    let default = RestConfig::default();
    RestConfig {
        listen: config.listen_addresses.clone(),
        read_timeout: config.timeouts.read,
        read_header_timeout: config.timeouts.read_header,
        write_timeout: config.timeouts.write,
        idle_timeout: config.timeouts.idle,
        max_header_bytes: config.max_header_bytes,
        tls: config.tls.clone().map(|(certificate, key)| TlsFiles { certificate, key }),
        credentials: config.basic_auth.as_ref().map(|users| Credentials {
            passwords: users.iter().map(|(user, word)| (user.clone(), word.reveal().to_owned())).collect(),
            scopes: config.access.scopes.clone(),
            token_lifetime: config.access.token_lifetime,
            files: Some(Arc::new(tokens)),
        }),
        allowed_hosts: config.allowed_hosts.clone(),
        max_connections: config.limits.connections,
        max_connections_per_ip: config.limits.connections_per_ip,
        max_writes: config.limits.writes,
        max_upload_bytes: config.limits.upload_bytes,
        cors: CorsRules {
            allowed_origins: config.cors.allowed_origins.clone(),
            allowed_methods: config.cors.allowed_methods.clone(),
            allowed_headers: config.cors.allowed_headers.clone(),
            exposed_headers: config.cors.exposed_headers.clone(),
            allow_credentials: config.cors.allow_credentials,
            max_age: config.cors.max_age,
        },
        log_file: config.log_file.clone(),
        headers: config.headers.clone(),
        ..default
    }
}

/// The IPFS proxy. In front of the node of the configuration, or of the one inside if none is named beside it.
pub(crate) fn proxy(proxy: &config::ProxyConfig, config: &Config) -> ProxyConfig {
    let default = ProxyConfig::default();
    let is_inside = matches!(config.ipfs, IpfsConfig::Embedded(_)) && proxy.node_address == default.node;
    let node = if is_inside { node_socket(&config.folder) } else { proxy.node_address.clone() };
    ProxyConfig {
        listen: proxy.listen_addresses.clone(),
        node,
        node_https: proxy.node_https && !is_inside,
        log_file: proxy.log_file.clone(),
        read_timeout: proxy.timeouts.read,
        read_header_timeout: proxy.timeouts.read_header,
        write_timeout: proxy.timeouts.write,
        idle_timeout: proxy.timeouts.idle,
        max_header_bytes: proxy.max_header_bytes,
        extract_headers_extra: proxy.extract_headers_extra.clone(),
        extract_headers_path: proxy.extract_headers_path.clone(),
        extract_headers_ttl: proxy.extract_headers_ttl,
        ..default
    }
}

/// Where the RPC of the embedded node is.
fn node_socket(folder: &config::ConfigFolder) -> Multiaddr {
    Multiaddr::from(Protocol::Unix(folder.file(NODE_SOCKET).to_string_lossy().into_owned().into()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn every_so_many_changes_are_announced() {
        let (counter, announced) = (watch::Sender::new(7), Cell::new(0));
        let announcing =
            after_every(NonZeroU64::new(3).unwrap(), counter.subscribe(), || announced.set(announced.get() + 1));
        let changing = async {
            for (count, expected) in [(9, 0), (10, 1), (12, 1), (13, 2), (40, 3), (42, 3)] {
                counter.send_replace(count);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(announced.get(), expected, "after {count} changes");
            }
            drop(counter);
        };
        tokio::join!(announcing, changing);
    }

    #[test]
    fn the_proxy_stands_before_the_node_inside_unless_another_is_named() {
        let place = tempfile::tempdir().unwrap();
        let folder = config::ConfigFolder::new(place.path());
        let node_of = |node, named: &[(&str, &str)]| {
            let named = named.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            let named: std::collections::BTreeMap<String, String> = named.collect();
            let written = config::NewConfig { node, ..config::NewConfig::with_new_secret() }.write(&folder, &named);
            let config = written.unwrap().config;
            proxy(config.ipfs_proxy.as_ref().unwrap(), &config).node.to_string()
        };
        let other = [("CLUSTER_IPFSPROXY_NODEMULTIADDRESS", "/dns4/node/tcp/5001")];
        assert_eq!(node_of(config::NodeKind::Kubo, &[]), "/ip4/127.0.0.1/tcp/5001");
        assert_eq!(node_of(config::NodeKind::Kubo, &other), other[0].1);
        assert!(node_of(config::NodeKind::Embedded, &[]).ends_with("ipfs-api.sock"));
        assert_eq!(node_of(config::NodeKind::Embedded, &other), other[0].1);
    }

    #[test]
    fn connections_are_bounded_by_the_high_water_and_by_the_descriptors() {
        let place = tempfile::tempdir().unwrap();
        let folder = config::ConfigFolder::new(place.path());
        let written = config::NewConfig::with_new_secret().write(&folder, &std::collections::BTreeMap::new()).unwrap();
        let mut cluster = written.config.cluster;
        assert_eq!(most_connections(&cluster, 1_000_000), 3_200);
        assert_eq!(most_connections(&cluster, 1_000), 500);
        cluster.resources.file_descriptors = 70;
        assert_eq!(most_connections(&cluster, 1_000), 70);
        cluster.resources.enabled = false;
        assert_eq!(most_connections(&cluster, 1_000), 3_200);
    }
}
