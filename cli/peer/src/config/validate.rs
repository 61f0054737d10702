//! From the document to checked types: the only way to a [`Config`].
//!
//! Pure but for the host's name: document in, configuration or the first error out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_core::tracker::{HoldFilter, ShareError};
use cluster_net::{Identity, IdentityError};
use cluster_types::{Multiaddr, PeerId, Protocol, ReplicationFactor, parse_peer_id};

use super::access::{access, refuse_open};
use super::addresses::{
    absolute_path, api_addresses, header_names, node_address, only_tcp, peer_addresses, sendable_headers,
};
use super::document::{Document, Reader};
use super::error::ConfigError;
use super::folder::{ConfigFolder, PEERSTORE};
use super::sections::{
    AllocatorConfig, ClusterConfig, Config, ConnectionLimits, ConsensusConfig, ConsensusMode, ConsensusTimings,
    CorsConfig, DiskInformerConfig, DiskMetric, EmbeddedNodeConfig, HttpApiConfig, HttpHostConfig, HttpLimits,
    HttpTimeouts, IdentityHalf, IdentitySource, InformersConfig, IpfsConfig, KuboConfig, MonitorConfig, ProxyConfig,
    PubsubConfig, QueueInformerConfig, ResourceLimits, TagsInformerConfig, TelemetryConfig, TrackerConfig,
    TrustedPeers, hostname,
};
use super::table::{
    BALANCED, CLUSTER, CRDT, Component, DISK, EMBEDDED, IPFSHTTP, IPFSPROXY, METRICS, PINQUEUE, PINSVCAPI, PUBSUBMON,
    RAFT, RESTAPI, STATELESS, TAGS, TRACING,
};

/// States that were set aside and are kept, where nothing says how many: as many as the original keeps.
const BACKUPS: usize = 6;
/// The least that `max_header_bytes` may be.
const MIN_HEADER_BYTES: usize = 4096;

/// Checks everything.
pub(super) fn validate(document: &Document, folder: &ConfigFolder) -> Result<Config, ConfigError> {
    document.check_shape()?;
    let consensus = consensus(document)?;
    let state_folder = state_folder(document, folder, &consensus.mode)?;
    Ok(Config {
        cluster: cluster(document, folder)?,
        consensus,
        rest_api: optional(document, &RESTAPI, |reader| http_api(reader, folder))?,
        pinning_service: optional(document, &PINSVCAPI, |reader| http_api(reader, folder))?,
        ipfs_proxy: optional(document, &IPFSPROXY, |reader| proxy(reader, folder))?,
        ipfs: ipfs(document)?,
        tracker: tracker(&document.reader(&STATELESS))?,
        monitor: MonitorConfig { check_interval: document.reader(&PUBSUBMON).interval("check_interval")? },
        allocator: allocator(document)?,
        informers: informers(document)?,
        telemetry: telemetry(document)?,
        state_folder,
        folder: folder.clone(),
    })
}

/// Refuses a REST API for everyone that nobody asked for, and a follower that trusts nobody: there is nobody to follow. A
/// member may do without others.
pub(super) fn refuse_unprotected(document: &Document) -> Result<(), ConfigError> {
    refuse_open(document)?;
    if !document.has(&CRDT) || !document.reader(&CLUSTER).flag("follower_mode")? {
        return Ok(());
    }
    let crdt = document.reader(&CRDT);
    let ConsensusMode::Crdt { trusted: TrustedPeers::Only(trusted), .. } = crdt_mode(&crdt)? else { return Ok(()) };
    if !trusted.is_empty() {
        return Ok(());
    }
    Err(crdt.refuse("trusted_peers", "a follower follows those it trusts: name at least one, or write [\"*\"]"))
}

/// A component that is used only when the file has it.
fn optional<T>(
    document: &Document,
    component: &'static Component,
    check: impl FnOnce(&Reader<'_>) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    document.has(component).then(|| check(&document.reader(component))).transpose()
}

fn cluster(document: &Document, folder: &ConfigFolder) -> Result<ClusterConfig, ConfigError> {
    let reader = &document.reader(&CLUSTER);
    let (trusted, untrusted) = (reader.flag("pin_only_on_trusted_peers")?, reader.flag("pin_only_on_untrusted_peers")?);
    if trusted && untrusted {
        return Err(reader.refuse("pin_only_on_untrusted_peers", "it excludes pin_only_on_trusted_peers, set one only"));
    }
    let listen_addresses = only_tcp(reader, "listen_multiaddress")?;
    let peer_name = reader.text("peername")?;
    let peerstore = reader.text("peerstore_file")?;
    Ok(ClusterConfig {
        peer_name: if peer_name.is_empty() { hostname() } else { peer_name },
        secret: cluster_secret(reader)?,
        identity: identity(document, reader)?,
        leave_on_shutdown: reader.flag("leave_on_shutdown")?,
        listen_addresses,
        announce_addresses: reader.addresses("announce_multiaddress")?,
        no_announce_addresses: reader.addresses("no_announce_multiaddress")?,
        relay_hop: reader.flag("enable_relay_hop")?,
        connections: connections(reader)?,
        resources: ResourceLimits {
            enabled: reader.flag("resource_manager.enabled")?,
            memory_bytes: reader.whole("resource_manager.memory_limit_bytes")?,
            file_descriptors: reader.whole("resource_manager.file_descriptors_limit")?,
        },
        pubsub: pubsub(reader)?,
        dial_timeout: reader.interval("dial_peer_timeout")?,
        state_sync_interval: reader.interval("state_sync_interval")?,
        pin_recover_interval: reader.interval("pin_recover_interval")?,
        replication: replication(reader)?,
        ping_interval: reader.interval("monitor_ping_interval")?,
        peer_watch_interval: reader.interval("peer_watch_interval")?,
        mdns_interval: unless_zero(reader.duration("mdns_interval")?),
        pin_only_on_trusted_peers: trusted,
        pin_only_on_untrusted_peers: untrusted,
        repinning: !reader.flag("disable_repinning")?,
        repinning_grace_period: reader.duration("repinning_grace_period")?,
        follower_mode: reader.flag("follower_mode")?,
        follower_filter: follower_filter(reader)?,
        collects_for_others: true,
        peerstore_file: folder.file(if peerstore.is_empty() { PEERSTORE } else { &peerstore }),
        peer_addresses: peer_addresses(reader)?,
    })
}

fn follower_filter(reader: &Reader<'_>) -> Result<HoldFilter, ConfigError> {
    const SHARE: &str = "follower_filter.share";
    let share = reader.text(SHARE)?;
    let share = if share.is_empty() {
        None
    } else {
        Some(share.parse().map_err(|error: ShareError| reader.refuse(SHARE, error.to_string()))?)
    };
    let metadata = reader.text_map("follower_filter.metadata")?;
    Ok(HoldFilter { names: reader.texts("follower_filter.names")?, metadata, share })
}

fn cluster_secret(reader: &Reader<'_>) -> Result<Option<super::ClusterSecret>, ConfigError> {
    let text = reader.secret("secret")?;
    if text.reveal().is_empty() {
        return Ok(None);
    }
    text.reveal().parse().map(Some).map_err(|error: super::SecretError| reader.refuse("secret", error.to_string()))
}

pub(super) fn identity(document: &Document, reader: &Reader<'_>) -> Result<IdentitySource, ConfigError> {
    let (id, key) = (reader.text("id")?, reader.secret("private_key")?);
    let overridden = document.is_overridden(&CLUSTER, "id") || document.is_overridden(&CLUSTER, "private_key");
    let checked_id = || parse_peer_id(&id).map_err(|error| reader.refuse("id", error.to_string()));
    let unusable = |error: IdentityError| reader.refuse("private_key", error.to_string());
    let none = IdentitySource::default();
    Ok(match (id.is_empty(), key.reveal().is_empty()) {
        (true, true) => none,
        (false, false) => {
            let peer = checked_id()?;
            Identity::from_parts(&id, key.reveal()).map_err(unusable)?;
            let pair = Some((peer, key));
            if overridden {
                IdentitySource { environment: pair, ..none }
            } else {
                IdentitySource { legacy: pair, ..none }
            }
        }
        (false, true) if overridden => IdentitySource { half: Some(IdentityHalf::Id(checked_id()?)), ..none },
        (true, false) if overridden => {
            Identity::from_private_key(key.reveal()).map_err(unusable)?;
            IdentitySource { half: Some(IdentityHalf::Key(key)), ..none }
        }
        (true, false) => return Err(reader.refuse("private_key", "it needs cluster.id: give both or none")),
        (false, true) => return Err(reader.refuse("id", "it needs cluster.private_key: give both or none")),
    })
}

fn connections(reader: &Reader<'_>) -> Result<ConnectionLimits, ConfigError> {
    let limits = ConnectionLimits {
        high_water: reader.positive("connection_manager.high_water")?,
        low_water: reader.positive("connection_manager.low_water")?,
        grace_period: reader.interval("connection_manager.grace_period")?,
    };
    if limits.low_water > limits.high_water {
        return Err(reader.refuse("connection_manager.low_water", "it must not be above high_water"));
    }
    Ok(limits)
}

fn pubsub(reader: &Reader<'_>) -> Result<PubsubConfig, ConfigError> {
    let pubsub = PubsubConfig {
        seen_messages_ttl: reader.interval("pubsub.seen_messages_ttl")?,
        heartbeat_interval: reader.interval("pubsub.heartbeat_interval")?,
        degree_factor: reader.positive("pubsub.d_factor")?,
        history_gossip: reader.positive("pubsub.history_gossip")?,
        history_length: reader.positive("pubsub.history_length")?,
        flood_publish: reader.flag("pubsub.flood_publish")?,
    };
    if pubsub.history_gossip > pubsub.history_length {
        return Err(reader.refuse("pubsub.history_gossip", "it must not be above history_length"));
    }
    Ok(pubsub)
}

fn replication(reader: &Reader<'_>) -> Result<ReplicationFactor, ConfigError> {
    // 0 is the original's way to say "the default".
    let factor = |key: &str| reader.whole::<i32>(key).map(|factor| if factor == 0 { -1 } else { factor });
    ReplicationFactor::checked(factor("replication_factor_min")?, factor("replication_factor_max")?)
        .map_err(|error| reader.refuse("replication_factor_min", error.to_string()))
}

fn consensus(document: &Document) -> Result<ConsensusConfig, ConfigError> {
    let (component, mode) = match (document.has(&CRDT), document.has(&RAFT)) {
        (true, false) => (&CRDT, crdt_mode(&document.reader(&CRDT))?),
        (false, true) => (&RAFT, raft_mode(&document.reader(&RAFT))?),
        (true, true) | (false, false) => {
            return Err(contradiction(
                document,
                "could not determine the consensus component: have exactly one of consensus.crdt and consensus.raft",
            ));
        }
    };
    let reader = &document.reader(component);
    let timings = ConsensusTimings {
        heartbeat_interval: reader.interval("heartbeat_interval")?,
        election_timeout_min: reader.interval("election_timeout_min")?,
        election_timeout_max: reader.interval("election_timeout_max")?,
    };
    if timings.heartbeat_interval >= timings.election_timeout_min {
        return Err(reader.refuse("heartbeat_interval", "it must be below election_timeout_min"));
    }
    if timings.election_timeout_min > timings.election_timeout_max {
        return Err(reader.refuse("election_timeout_min", "it must not be above election_timeout_max"));
    }
    let cluster_name = reader.text("cluster_name")?;
    let (snapshot_threshold, voter_grace) =
        (reader.positive("snapshot_threshold")?, reader.interval("voter_grace_period")?);
    let max_voters = reader.positive("max_voters")?;
    let backups = if document.has(&RAFT) { reader.positive("backups_rotate")? } else { BACKUPS };
    Ok(ConsensusConfig { cluster_name, mode, max_voters, snapshot_threshold, voter_grace, timings, backups })
}

fn crdt_mode(reader: &Reader<'_>) -> Result<ConsensusMode, ConfigError> {
    let trusted = reader.texts("trusted_peers")?;
    let trusted = if trusted.iter().any(|peer| peer == "*") {
        TrustedPeers::Everyone
    } else {
        TrustedPeers::Only(peer_ids(reader, "trusted_peers", &trusted)?)
    };
    Ok(ConsensusMode::Crdt { trusted, commit_timeout: reader.interval("commit_timeout")? })
}

fn raft_mode(reader: &Reader<'_>) -> Result<ConsensusMode, ConfigError> {
    let initial_peers = peer_ids(reader, "init_peerset", &reader.texts("init_peerset")?)?;
    Ok(ConsensusMode::Raft { initial_peers, leader_timeout: reader.interval("wait_for_leader_timeout")? })
}

fn peer_ids(reader: &Reader<'_>, key: &str, texts: &[String]) -> Result<Vec<PeerId>, ConfigError> {
    let parsed: Result<Vec<PeerId>, _> = texts.iter().map(|text| parse_peer_id(text)).collect();
    parsed.map_err(|error| reader.refuse(key, error.to_string()))
}

/// The folder with the state. It has a name of its own, so that a database of the original beside it stays untouched.
fn state_folder(document: &Document, folder: &ConfigFolder, mode: &ConsensusMode) -> Result<PathBuf, ConfigError> {
    if matches!(mode, ConsensusMode::Crdt { .. }) && document.datastores().len() > 1 {
        return Err(contradiction(document, "unknown datastore: have exactly one section in datastore"));
    }
    Ok(folder.state_folder())
}

fn contradiction(document: &Document, message: &str) -> ConfigError {
    ConfigError::Contradiction { message: message.to_owned(), path: document.path().to_owned() }
}

fn http_api(reader: &Reader<'_>, folder: &ConfigFolder) -> Result<HttpApiConfig, ConfigError> {
    let listen_addresses = api_addresses(reader, "http_listen_multiaddress")?;
    let (certificate, key) = (reader.text("ssl_cert_file")?, reader.text("ssl_key_file")?);
    let tls = match (certificate.is_empty(), key.is_empty()) {
        (true, true) => None,
        (false, false) => Some((folder.file(&certificate), folder.file(&key))),
        (true, false) => return Err(reader.refuse("ssl_key_file", "it needs ssl_cert_file: give both or none")),
        (false, true) => return Err(reader.refuse("ssl_cert_file", "it needs ssl_key_file: give both or none")),
    };
    Ok(HttpApiConfig {
        listen_addresses,
        libp2p: http_host(reader)?,
        tls,
        timeouts: timeouts(reader)?,
        max_header_bytes: header_bytes(reader)?,
        basic_auth: reader.credentials("basic_auth_credentials")?,
        access: access(reader)?,
        log_file: optional_file(&reader.text("http_log_file")?, folder),
        headers: sendable_headers(reader, "headers")?,
        allowed_hosts: reader.texts("allowed_hosts")?,
        limits: HttpLimits {
            connections: reader.positive("max_connections")?,
            connections_per_ip: reader.whole("max_connections_per_ip")?,
            writes: reader.positive("max_writes")?,
            upload_bytes: Some(reader.size("max_upload_bytes")?.0).filter(|bytes| *bytes > 0),
        },
        cors: CorsConfig {
            allowed_origins: reader.texts("cors_allowed_origins")?,
            allowed_methods: reader.texts("cors_allowed_methods")?,
            allowed_headers: reader.texts("cors_allowed_headers")?,
            exposed_headers: reader.texts("cors_exposed_headers")?,
            allow_credentials: reader.flag("cors_allow_credentials")?,
            max_age: reader.duration("cors_max_age")?,
        },
    })
}

/// The host on which the API is served over libp2p: all of its keys, or none.
fn http_host(reader: &Reader<'_>) -> Result<Option<HttpHostConfig>, ConfigError> {
    let (id, private_key) = (reader.text("id")?, reader.secret("private_key")?);
    let listen_addresses = reader.addresses("libp2p_listen_multiaddress")?;
    match [id.is_empty(), private_key.reveal().is_empty(), listen_addresses.is_empty()] {
        [true, true, true] => return Ok(None),
        [false, false, false] => {}
        _some => {
            return Err(reader.refuse("id", "all ID, private_key and libp2p_listen_multiaddress should be set"));
        }
    }
    let peer = parse_peer_id(&id).map_err(|error| reader.refuse("id", error.to_string()))?;
    Identity::from_parts(&id, private_key.reveal()).map_err(|error| reader.refuse("private_key", error.to_string()))?;
    Ok(Some(HttpHostConfig { listen_addresses: only_tcp(reader, "libp2p_listen_multiaddress")?, peer, private_key }))
}

fn proxy(reader: &Reader<'_>, folder: &ConfigFolder) -> Result<ProxyConfig, ConfigError> {
    let (listen_addresses, node_address) = (api_addresses(reader, "listen_multiaddress")?, node_address(reader)?);
    if listen_addresses.contains(&node_address) {
        return Err(reader.refuse("node_multiaddress", "the proxy itself listens there"));
    }
    Ok(ProxyConfig {
        listen_addresses,
        node_address,
        node_https: reader.flag("node_https")?,
        log_file: optional_file(&reader.text("log_file")?, folder),
        timeouts: timeouts(reader)?,
        max_header_bytes: header_bytes(reader)?,
        extract_headers_extra: header_names(reader, "extract_headers_extra")?,
        extract_headers_path: absolute_path(reader, "extract_headers_path")?,
        extract_headers_ttl: reader.duration("extract_headers_ttl")?,
    })
}

fn timeouts(reader: &Reader<'_>) -> Result<HttpTimeouts, ConfigError> {
    Ok(HttpTimeouts {
        read: unless_zero(reader.duration("read_timeout")?),
        read_header: unless_zero(reader.duration("read_header_timeout")?),
        write: unless_zero(reader.duration("write_timeout")?),
        idle: unless_zero(reader.duration("idle_timeout")?),
    })
}

fn header_bytes(reader: &Reader<'_>) -> Result<usize, ConfigError> {
    let bytes = reader.positive("max_header_bytes")?;
    if bytes < MIN_HEADER_BYTES {
        return Err(reader.refuse("max_header_bytes", format!("it must be at least {MIN_HEADER_BYTES}")));
    }
    Ok(bytes)
}

fn ipfs(document: &Document) -> Result<IpfsConfig, ConfigError> {
    if !document.has(&EMBEDDED) {
        return kubo(&document.reader(&IPFSHTTP)).map(IpfsConfig::Kubo);
    }
    if document.has(&IPFSHTTP) {
        let message = "a peer looks after one node: have exactly one of ipfs_connector.ipfshttp and .embedded";
        return Err(contradiction(document, message));
    }
    let reader = &document.reader(&EMBEDDED);
    Ok(IpfsConfig::Embedded(EmbeddedNodeConfig {
        listen_addresses: only_tcp(reader, "listen_multiaddress")?,
        storage_max: reader.size("storage_max")?,
        storage_gc_watermark: watermark(reader)?,
        rpc_listen_addresses: rpc_addresses(reader)?,
        pin_timeout: reader.interval("pin_timeout")?,
    }))
}

fn watermark(reader: &Reader<'_>) -> Result<Option<u8>, ConfigError> {
    match reader.whole::<u8>("storage_gc_watermark")? {
        0 => Ok(None),
        percent @ 1..=100 => Ok(Some(percent)),
        _ => Err(reader.refuse("storage_gc_watermark", "it must be between 0 (no limit) and 100 percent")),
    }
}

fn rpc_addresses(reader: &Reader<'_>) -> Result<Vec<Multiaddr>, ConfigError> {
    let addresses = reader.addresses("rpc_listen_multiaddress")?;
    let is_plain = |address: &Multiaddr| {
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        matches!(parts.as_slice(), [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)])
    };
    match addresses.iter().find(|address| !is_plain(address)) {
        None => Ok(addresses),
        Some(other) => Err(reader
            .refuse("rpc_listen_multiaddress", format!("{other} is not a TCP address like /ip4/127.0.0.1/tcp/5001"))),
    }
}

pub(super) fn kubo(reader: &Reader<'_>) -> Result<KuboConfig, ConfigError> {
    Ok(KuboConfig {
        node_address: node_address(reader)?,
        connect_swarms_delay: unless_zero(reader.duration("connect_swarms_delay")?),
        request_timeout: reader.interval("ipfs_request_timeout")?,
        pin_timeout: reader.interval("pin_timeout")?,
        unpin_timeout: reader.interval("unpin_timeout")?,
        repo_gc_timeout: reader.interval("repogc_timeout")?,
        informer_trigger_interval: reader.whole("informer_trigger_interval")?,
        unpin_disabled: reader.flag("unpin_disable")?,
    })
}

fn tracker(reader: &Reader<'_>) -> Result<TrackerConfig, ConfigError> {
    Ok(TrackerConfig {
        max_queue_size: reader.positive("max_pin_queue_size")?,
        concurrent_pins: reader.positive("concurrent_pins")?,
        priority_max_age: reader.interval("priority_pin_max_age")?,
        priority_max_retries: reader.positive("priority_pin_max_retries")?,
    })
}

fn allocator(document: &Document) -> Result<AllocatorConfig, ConfigError> {
    // A file without the section is from before there were tags.
    if !document.has(&BALANCED) && !document.is_overridden(&BALANCED, "allocate_by") {
        return Ok(AllocatorConfig { allocate_by: vec!["freespace".to_owned()] });
    }
    let reader = &document.reader(&BALANCED);
    let allocate_by = reader.texts("allocate_by")?;
    if allocate_by.is_empty() {
        return Err(reader.refuse("allocate_by", "name at least one metric"));
    }
    Ok(AllocatorConfig { allocate_by })
}

fn informers(document: &Document) -> Result<InformersConfig, ConfigError> {
    let informers = InformersConfig {
        disk: optional(document, &DISK, disk)?,
        tags: optional(document, &TAGS, |reader| {
            Ok(TagsInformerConfig { ttl: reader.interval("metric_ttl")?, tags: reader.text_map("tags")? })
        })?,
        queue: optional(document, &PINQUEUE, |reader| {
            let weight_bucket_size = reader.whole("weight_bucket_size")?;
            Ok(QueueInformerConfig { ttl: reader.interval("metric_ttl")?, weight_bucket_size })
        })?,
    };
    if informers.disk.is_none() && informers.tags.is_none() && informers.queue.is_none() {
        return Err(contradiction(document, "no informers are passed: have informer.disk, tags or pinqueue"));
    }
    Ok(informers)
}

fn disk(reader: &Reader<'_>) -> Result<DiskInformerConfig, ConfigError> {
    let metric = match reader.text("metric_type")?.as_str() {
        "freespace" => DiskMetric::FreeSpace,
        "reposize" => DiskMetric::RepoSize,
        _ => return Err(reader.refuse("metric_type", "expected freespace or reposize")),
    };
    Ok(DiskInformerConfig { ttl: reader.interval("metric_ttl")?, metric })
}

fn telemetry(document: &Document) -> Result<TelemetryConfig, ConfigError> {
    let (metrics, tracing) = (&document.reader(&METRICS), &document.reader(&TRACING));
    let sampling = tracing.number("sampling_prob")?;
    if !(0.0..=1.0).contains(&sampling) {
        return Err(tracing.refuse("sampling_prob", "it must be between 0 and 1"));
    }
    tracing.address("jaeger_agent_endpoint")?;
    Ok(TelemetryConfig {
        enabled: metrics.flag("enable_stats")?,
        prometheus_address: metrics.address("prometheus_endpoint")?,
        reporting_interval: metrics.interval("reporting_interval")?,
        tracing_enabled: tracing.flag("enable_tracing")?,
        tracing_sampling: sampling,
        tracing_service: tracing.text("service_name")?,
    })
}

fn optional_file(name: &str, folder: &ConfigFolder) -> Option<PathBuf> {
    (!name.is_empty()).then(|| folder.file(Path::new(name)))
}

fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
