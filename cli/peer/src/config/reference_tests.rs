//! Every key of the reference: in the file and in the environment it has the same effect, and its absence the one that
//! the original gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Map, Value, json};

use super::environment::{parse_variable, variable_name};
use super::table::{COMPONENTS, Component, Field, Kind};
use super::*;

const KEYS: &str = include_str!("fixtures/reference-keys.txt");
const PEBBLE: &str = include_str!("fixtures/original-pebble.json");
const RAFT: &str = include_str!("fixtures/original-raft.json");
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const PEER_ADDRESS: &str = "/ip4/10.0.0.1/tcp/9096/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Each key with a text that differs from the default and can be used. The keys of `api.pinsvcapi` are those of
/// `api.restapi`.
const SAMPLES: [(&str, &str); 106] = [
    ("cluster.peername", "blue"),
    ("cluster.secret", "abababababababababababababababababababababababababababababababab"),
    ("cluster.leave_on_shutdown", "true"),
    ("cluster.listen_multiaddress", "/ip4/127.0.0.1/tcp/1,/ip4/127.0.0.1/tcp/2"),
    ("cluster.announce_multiaddress", "/ip4/10.0.0.1/tcp/1"),
    ("cluster.no_announce_multiaddress", "/ip4/10.0.0.0/ipcidr/8"),
    ("cluster.enable_relay_hop", "f"),
    ("cluster.connection_manager.high_water", "0x200"),
    ("cluster.connection_manager.low_water", "50"),
    ("cluster.connection_manager.grace_period", "1m"),
    ("cluster.resource_manager.enabled", "FALSE"),
    ("cluster.resource_manager.memory_limit_bytes", "1000000000"),
    ("cluster.resource_manager.file_descriptors_limit", "1000"),
    ("cluster.pubsub.seen_messages_ttl", "1m"),
    ("cluster.pubsub.heartbeat_interval", "1s"),
    ("cluster.pubsub.d_factor", "1"),
    ("cluster.pubsub.history_gossip", "3"),
    ("cluster.pubsub.history_length", "7"),
    ("cluster.pubsub.flood_publish", "1"),
    ("cluster.dial_peer_timeout", "7s"),
    ("cluster.state_sync_interval", "7s"),
    ("cluster.pin_recover_interval", "7s"),
    ("cluster.replication_factor_min", "2"),
    ("cluster.replication_factor_max", "4"),
    ("cluster.monitor_ping_interval", "7s"),
    ("cluster.peer_watch_interval", "7s"),
    ("cluster.mdns_interval", "0s"),
    ("cluster.pin_only_on_trusted_peers", "true"),
    ("cluster.pin_only_on_untrusted_peers", "true"),
    ("cluster.disable_repinning", "false"),
    ("cluster.follower_mode", "true"),
    ("cluster.peerstore_file", "friends"),
    ("cluster.peer_addresses", PEER_ADDRESS),
    ("cluster.id", "@ID@"),
    ("cluster.private_key", "@KEY@"),
    ("consensus.crdt.cluster_name", "blue"),
    ("consensus.crdt.trusted_peers", PEER),
    ("consensus.raft.init_peerset", PEER),
    ("consensus.raft.wait_for_leader_timeout", "7s"),
    ("consensus.raft.backups_rotate", "2"),
    ("consensus.raft.snapshot_threshold", "100"),
    ("api.restapi.http_listen_multiaddress", "/ip4/127.0.0.1/tcp/1,/unix/a/b"),
    ("api.restapi.ssl_cert_file", "cert.pem"),
    ("api.restapi.ssl_key_file", "key.pem"),
    ("api.restapi.read_timeout", "7s"),
    ("api.restapi.read_header_timeout", "7s"),
    ("api.restapi.write_timeout", "7s"),
    ("api.restapi.idle_timeout", "7s"),
    ("api.restapi.max_header_bytes", "8192"),
    ("api.restapi.libp2p_listen_multiaddress", "/ip4/127.0.0.1/tcp/1"),
    ("api.restapi.id", "@ID@"),
    ("api.restapi.private_key", "@KEY@"),
    ("api.restapi.basic_auth_credentials", "ann:swordfish"),
    ("api.restapi.http_log_file", "http.log"),
    ("api.restapi.headers", "x-a:b"),
    ("api.restapi.cors_allowed_origins", "https://a"),
    ("api.restapi.cors_allowed_methods", "GET,POST"),
    ("api.restapi.cors_allowed_headers", "x-a"),
    ("api.restapi.cors_exposed_headers", "x-a"),
    ("api.restapi.cors_allow_credentials", "false"),
    ("api.restapi.cors_max_age", "7s"),
    ("api.ipfsproxy.listen_multiaddress", "/ip4/127.0.0.1/tcp/1"),
    ("api.ipfsproxy.node_multiaddress", "/dns4/node/tcp/5001"),
    ("api.ipfsproxy.node_https", "true"),
    ("api.ipfsproxy.log_file", "proxy.log"),
    ("api.ipfsproxy.read_timeout", "7s"),
    ("api.ipfsproxy.read_header_timeout", "7s"),
    ("api.ipfsproxy.write_timeout", "7s"),
    ("api.ipfsproxy.idle_timeout", "7s"),
    ("api.ipfsproxy.max_header_bytes", "8192"),
    ("api.ipfsproxy.extract_headers_extra", "x-a,x-b"),
    ("api.ipfsproxy.extract_headers_path", "/x"),
    ("api.ipfsproxy.extract_headers_ttl", "7s"),
    ("ipfs_connector.ipfshttp.node_multiaddress", "/dns4/node/tcp/5001"),
    ("ipfs_connector.ipfshttp.connect_swarms_delay", "7s"),
    ("ipfs_connector.ipfshttp.ipfs_request_timeout", "7s"),
    ("ipfs_connector.ipfshttp.pin_timeout", "7s"),
    ("ipfs_connector.ipfshttp.unpin_timeout", "7s"),
    ("ipfs_connector.ipfshttp.repogc_timeout", "7s"),
    ("ipfs_connector.ipfshttp.informer_trigger_interval", "7"),
    ("ipfs_connector.ipfshttp.unpin_disable", "true"),
    ("pin_tracker.stateless.max_pin_queue_size", "7"),
    ("pin_tracker.stateless.concurrent_pins", "7"),
    ("pin_tracker.stateless.priority_pin_max_age", "7s"),
    ("pin_tracker.stateless.priority_pin_max_retries", "7"),
    ("monitor.pubsubmon.check_interval", "7s"),
    ("allocator.balanced.allocate_by", "tag:region,freespace"),
    ("informer.disk.metric_ttl", "7s"),
    ("informer.disk.metric_type", "reposize"),
    ("informer.pinqueue.metric_ttl", "7s"),
    ("informer.pinqueue.weight_bucket_size", "7"),
    ("informer.tags.metric_ttl", "7s"),
    ("informer.tags.tags", "region:us,group:a"),
    ("observations.metrics.enable_stats", "true"),
    ("observations.metrics.prometheus_endpoint", "/ip4/127.0.0.1/tcp/1"),
    ("observations.metrics.reporting_interval", "7s"),
    ("observations.tracing.enable_tracing", "true"),
    ("observations.tracing.jaeger_agent_endpoint", "/ip4/127.0.0.1/udp/1"),
    ("observations.tracing.sampling_prob", "0.5"),
    ("observations.tracing.service_name", "blue"),
    // Ours.
    ("consensus.crdt.commit_timeout", "7s"),
    ("consensus.crdt.max_voters", "3"),
    ("consensus.crdt.voter_grace_period", "7s"),
    ("consensus.crdt.heartbeat_interval", "100ms"),
    ("consensus.crdt.election_timeout_min", "1500ms"),
    ("consensus.crdt.election_timeout_max", "7s"),
];

/// Keys that are checked, and of which nothing is kept in the configuration that a peer starts with.
const CHECKED_ONLY: [&str; 5] = [
    "observations.tracing.jaeger_agent_endpoint",
    "api.restapi.id",
    "api.restapi.private_key",
    "api.restapi.libp2p_listen_multiaddress",
    "cluster.private_key",
];

/// What a missing key means, where it is not the default of the original's file: the text that says the same, or the
/// error.
const ABSENT: [(&str, Result<&str, &str>); 21] = [
    ("cluster.listen_multiaddress", Err("cluster.listen_multiaddress is undefined")),
    ("cluster.enable_relay_hop", Ok("false")),
    ("cluster.connection_manager.high_water", Err("high_water")),
    ("cluster.connection_manager.low_water", Err("low_water")),
    ("cluster.resource_manager.enabled", Ok("false")),
    ("cluster.pubsub.d_factor", Err("d_factor")),
    ("cluster.pubsub.history_gossip", Err("history_gossip")),
    ("cluster.pubsub.history_length", Err("history_length")),
    ("cluster.disable_repinning", Ok("false")),
    ("api.restapi.cors_allowed_origins", Ok("")),
    ("api.restapi.cors_allowed_methods", Ok("")),
    ("api.restapi.cors_allowed_headers", Ok("")),
    ("api.restapi.cors_exposed_headers", Ok("")),
    ("api.restapi.cors_allow_credentials", Ok("false")),
    ("ipfs_connector.ipfshttp.node_multiaddress", Err("node_multiaddress is undefined")),
    ("monitor.pubsubmon.check_interval", Err("check_interval is undefined")),
    ("informer.disk.metric_ttl", Err("metric_ttl is undefined")),
    ("informer.disk.metric_type", Err("metric_type is undefined")),
    ("informer.tags.tags", Ok("")),
    ("observations.metrics.prometheus_endpoint", Err("prometheus_endpoint is undefined")),
    ("observations.tracing.jaeger_agent_endpoint", Err("jaeger_agent_endpoint is undefined")),
];

/// One folder for all: its name is part of the configuration.
struct Place {
    folder: ConfigFolder,
    identity: cluster_net::Identity,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(directory.path());
        Self { folder, identity: cluster_net::Identity::generate(), _directory: directory }
    }

    /// The configuration of a file, as text with its secrets.
    fn load(&self, file: &Value, variables: &[(String, String)]) -> Result<String, String> {
        fs::write(self.folder.config_file(), file.to_string()).unwrap();
        let variables: BTreeMap<String, String> = variables.iter().cloned().collect();
        let config = load(&self.folder, &variables).map_err(|error| error.to_string())?.config;
        let secret = config.cluster.secret.as_ref().map(ClusterSecret::to_hex);
        Ok(format!("{secret:?} {config:#?}"))
    }

    fn text(&self, sample: &str) -> String {
        let id = self.identity.peer().to_string();
        sample.replace("@ID@", &id).replace("@KEY@", self.identity.reveal_private_key())
    }

    /// The file of the original beside whose other keys this one can be changed.
    fn base(&self, key: &str) -> Value {
        let raft = key.starts_with("consensus.raft");
        let mut file: Value = serde_json::from_str(if raft { RAFT } else { PEBBLE }).unwrap();
        let endpoint = ["libp2p_listen_multiaddress", "id", "private_key"];
        for (end, others) in [
            ("replication_factor_min", json!({"cluster": {"replication_factor_min": 1, "replication_factor_max": 3}})),
            ("replication_factor_max", json!({"cluster": {"replication_factor_min": 2, "replication_factor_max": 3}})),
            // A member is asked for more.
            ("pin_only_on_trusted_peers", json!({"cluster": {"follower_mode": true}})),
            ("pin_only_on_untrusted_peers", json!({"cluster": {"follower_mode": true}})),
            ("trusted_peers", json!({"cluster": {"follower_mode": true}})),
        ] {
            if key.ends_with(end) {
                merge(&mut file, &others);
            }
        }
        if let Some((api, end)) = key.rsplit_once('.').filter(|(api, _)| api.starts_with("api.")) {
            let name = api.trim_start_matches("api.");
            if end.starts_with("ssl_") {
                merge(&mut file, &json!({"api": {name: {"ssl_cert_file": "a", "ssl_key_file": "a"}}}));
            }
            if endpoint.contains(&end) {
                // The listener can be another one; the key and its peer only together.
                let (id, private_key) = (self.text("@ID@"), self.text("@KEY@"));
                let address = "/ip4/127.0.0.1/tcp/2";
                let given = json!({"libp2p_listen_multiaddress": address, "id": id, "private_key": private_key});
                merge(&mut file, &json!({"api": {name: given}}));
            }
        }
        if key == "cluster.id" {
            merge(&mut file, &json!({"cluster": {"private_key": self.text("@KEY@")}}));
        }
        if key == "cluster.private_key" {
            merge(&mut file, &json!({"cluster": {"id": self.text("@ID@")}}));
        }
        file
    }
}

fn merge(file: &mut Value, others: &Value) {
    match (file, others) {
        (Value::Object(file), Value::Object(others)) => {
            for (key, value) in others {
                merge(file.entry(key).or_insert(Value::Null), value);
            }
        }
        (place, other) => *place = other.clone(),
    }
}

fn find(key: &str) -> (&'static Component, &'static Field) {
    let fields =
        COMPONENTS.into_iter().flat_map(|component| component.fields.iter().map(move |field| (component, field)));
    let mut found = fields.filter(|(component, field)| component.full_key(field.key) == key);
    found.next().unwrap_or_else(|| panic!("{key} is not in the table"))
}

/// Every key with its sample; the APIs have the same keys.
fn samples() -> BTreeMap<String, &'static str> {
    let own = SAMPLES.iter().map(|(key, text)| ((*key).to_owned(), *text));
    let service = SAMPLES
        .iter()
        .filter_map(|(key, text)| Some((format!("api.pinsvcapi.{}", key.strip_prefix("api.restapi.")?), *text)));
    own.chain(service).collect()
}

/// Writes `text` where the file has `key`.
fn set(file: &mut Value, key: &str, text: &str) {
    let (component, field) = find(key);
    let value = parse_variable(component, field, "x", text).unwrap().unwrap();
    let nested = key.rsplit('.').fold(value, |inner, part| json!({ part: inner }));
    if value_is_map(&nested, key) {
        remove(file, key);
    }
    merge(file, &nested);
}

/// Whether the value is an object, which replaces the one before and is not mixed with it.
fn value_is_map(nested: &Value, key: &str) -> bool {
    nested.pointer(&pointer(key)).is_some_and(Value::is_object)
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('.', "/"))
}

fn remove(file: &mut Value, key: &str) -> bool {
    let (parents, last) = key.rsplit_once('.').unwrap();
    let parent: Option<&mut Map<String, Value>> = file.pointer_mut(&pointer(parents)).and_then(Value::as_object_mut);
    parent.is_some_and(|parent| parent.remove(last).is_some())
}

/// Whether a key is on a list that names the keys of `api.pinsvcapi` as those of `api.restapi`.
fn listed(list: &[&str], key: &str) -> bool {
    list.contains(&key.replace("pinsvcapi", "restapi").as_str())
}

#[test]
fn every_key_of_the_reference_is_walked() {
    let samples = samples();
    let reference: BTreeSet<&str> = KEYS.lines().collect();
    for key in &reference {
        let ignored = find(key).1.kind == Kind::Ignored;
        assert_ne!(ignored, samples.contains_key(*key), "{key} needs a sample, unless it is without meaning here");
    }
}

#[test]
fn every_key_and_its_variable_have_the_same_effect() {
    let place = Place::new();
    for (key, sample) in samples() {
        let (component, field) = find(&key);
        let text = place.text(sample);
        let base = place.base(&key);
        let mut file = base.clone();
        set(&mut file, &key, &text);
        let of_file = place.load(&file, &[]).unwrap_or_else(|error| panic!("{key} in the file: {error}"));
        let variables = [(variable_name(component, field), text)];
        let of_environment = place.load(&base, &variables).unwrap_or_else(|error| panic!("{key}: {error}"));
        if component.path() == "cluster" && ["id", "private_key"].contains(&field.key) {
            // They come before the identity file there, and after it here.
            assert!(of_file.contains("legacy: Some") && of_environment.contains("environment: Some"), "{key}");
            continue;
        }
        assert_eq!(of_file, of_environment, "{key}");
        if !listed(&CHECKED_ONLY, &key) {
            assert_ne!(Ok(of_file), place.load(&base, &[]), "{key} has no effect");
        }
    }
}

#[test]
fn a_missing_key_means_what_it_means_in_the_original() {
    let place = Place::new();
    let mut missing = 0;
    for key in KEYS.lines().filter(|key| find(key).1.kind != Kind::Ignored) {
        let mut file: Value =
            serde_json::from_str(if key.starts_with("consensus.raft") { RAFT } else { PEBBLE }).unwrap();
        let base = file.clone();
        // Those have values of their own in every file, or nobody is trusted.
        let own = ["cluster.peername", "cluster.secret", "consensus.crdt.trusted_peers"].contains(&key);
        if own || !remove(&mut file, key) {
            continue;
        }
        missing += 1;
        let found = place.load(&file, &[]);
        let rule = ABSENT.iter().find(|(known, _)| *known == key.replace("pinsvcapi", "restapi"));
        match rule.map(|(_, rule)| *rule) {
            Some(Err(part)) => assert!(found.as_ref().is_err_and(|error| error.contains(part)), "{key}: {found:?}"),
            Some(Ok(text)) => {
                let mut said = base;
                set(&mut said, key, text);
                assert_eq!(found, place.load(&said, &[]), "{key}");
            }
            None => assert_eq!(found, place.load(&base, &[]), "{key}"),
        }
    }
    assert!(missing > 90, "only {missing} were removed");
}

#[test]
fn a_missing_section_means_what_it_means_in_the_original() {
    let place = Place::new();
    let base: Value = serde_json::from_str(PEBBLE).unwrap();
    let without = |key: &str| {
        let mut file = base.clone();
        if key.contains('.') {
            assert!(remove(&mut file, key), "{key}")
        } else {
            file[key] = Value::Null
        };
        place.load(&file, &[])
    };
    for key in [
        "cluster.connection_manager",
        "cluster.resource_manager",
        "cluster.pubsub",
        "ipfs_connector",
        "pin_tracker",
        "monitor",
        "observations",
        "ipfs_connector.ipfshttp",
        "pin_tracker.stateless",
        "monitor.pubsubmon",
        "observations.metrics",
        "observations.tracing",
        "consensus.crdt.batching",
    ] {
        assert_eq!(without(key), place.load(&base, &[]), "{key}");
    }
    for key in ["allocator", "allocator.balanced"] {
        let mut said = base.clone();
        said["allocator"] = json!({"balanced": {"allocate_by": ["freespace"]}});
        assert_eq!(without(key), place.load(&said, &[]), "{key}");
    }
    assert!(without("informer").unwrap_err().contains("no informers are passed"));
    assert!(without("consensus").unwrap_err().contains("could not determine the consensus component"));
    for (key, part) in [
        ("api.restapi", "rest_api: None"),
        ("api.pinsvcapi", "pinning_service: None"),
        ("api.ipfsproxy", "ipfs_proxy: None"),
        ("informer.disk", "disk: None"),
        ("informer.tags", "tags: None"),
        ("informer.pinqueue", "queue: None"),
    ] {
        assert!(without(key).unwrap().contains(part), "{key}");
    }
    // An empty object is a whole proxy.
    let mut empty = base.clone();
    empty["api"]["ipfsproxy"] = json!({});
    assert_eq!(place.load(&empty, &[]), place.load(&base, &[]));
}
