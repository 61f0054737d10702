//! What a file, the environment and their absence lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cluster_core::trust::{Holders, Trust};
use cluster_types::{ErrorChain, ReplicationFactor};
use serde_json::{Value, json};

use super::table::{Absence, COMPONENTS, Component, Field, Kind};
use super::*;

const ORIGINAL: &str = include_str!("fixtures/original-pebble.json");

type Variables = BTreeMap<String, String>;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn temporary_folder() -> (tempfile::TempDir, ConfigFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path().join("peer"));
    folder.create().unwrap();
    (place, folder)
}

fn load_text(text: &str, environment: &Variables) -> Result<Loaded, ConfigError> {
    let (_place, folder) = temporary_folder();
    fs::write(folder.config_file(), text).unwrap();
    load(&folder, environment)
}

/// The original's file after a change.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(ORIGINAL).unwrap();
    change(&mut file);
    file.to_string()
}

fn remove(file: &mut Value, section: &str, key: &str) {
    file.pointer_mut(section).unwrap().as_object_mut().unwrap().remove(key).unwrap();
}

fn failure(text: &str, environment: &Variables) -> String {
    ErrorChain(&load_text(text, environment).unwrap_err()).to_string()
}

#[test]
fn a_file_of_the_original_loads_unchanged() {
    let loaded = load_text(ORIGINAL, &Variables::new()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.cluster.peer_name, "archive-1");
    assert_eq!(config.cluster.secret.as_ref().unwrap().reveal()[31], 0x1f);
    assert_eq!(config.cluster.listen_addresses.len(), 1, "QUIC is left out");
    assert_eq!(config.cluster.replication, ReplicationFactor::Everywhere);
    assert!(!config.cluster.repinning);
    assert_eq!(
        config.consensus.mode,
        ConsensusMode::Crdt { trusted: TrustedPeers::Everyone, commit_timeout: Duration::from_secs(2) }
    );
    assert_eq!(config.consensus.max_voters, 5);
    assert_eq!(config.consensus.timings.heartbeat_interval, Duration::from_millis(250));
    let rest = config.rest_api.as_ref().unwrap();
    assert_eq!(rest.listen_addresses[0].to_string(), "/ip4/127.0.0.1/tcp/9094");
    assert_eq!(rest.timeouts.read, None);
    assert!(rest.basic_auth.is_none());
    let IpfsConfig::Kubo(kubo) = &config.ipfs else { panic!("the file has a Kubo") };
    assert_eq!(kubo.unpin_timeout, Duration::from_secs(3 * 3600));
    assert_eq!(config.informers.disk.unwrap().metric, DiskMetric::FreeSpace);
    assert_eq!(config.allocator.allocate_by, ["tag:group", "freespace"]);
    assert_eq!(loaded.remarks, [] as [&str; 0]);
}

#[test]
fn unknown_keys_are_named_in_one_remark() {
    let text = changed(|file| {
        file["cluster"]["colour"] = json!("blue");
        file["cluster"]["pubsub"]["speed"] = json!(3);
        file["informer"]["weather"] = json!({});
        file["extra"] = json!(1);
        file["state"] = json!({"anything": 1});
    });
    let remarks = load_text(&text, &Variables::new()).unwrap().remarks;
    let line = remarks.iter().find(|line| line.starts_with("unknown keys")).unwrap();
    for key in ["cluster.colour", "cluster.pubsub.speed", "informer.weather", "extra"] {
        assert!(line.contains(key), "{line}");
    }
    assert!(!line.contains("anything"), "{line}");
    assert!(!line.contains("pebble_options"), "{line}");
}

#[test]
fn the_environment_comes_before_the_file() {
    let environment = variables(&[
        ("CLUSTER_PEERNAME", "other"),
        ("CLUSTER_REPLICATIONFACTORMIN", "2"),
        ("CLUSTER_REPLICATIONFACTORMAX", "0x3"),
        ("CLUSTER_CONNECTIONMANAGER_HIGHWATER", "200"),
        ("CLUSTER_LISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/1,/ip4/127.0.0.1/tcp/2"),
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:one,bob:two"),
        ("CLUSTER_RESTAPI_CORSALLOWEDORIGINS", ""),
        ("CLUSTER_BALANCED_ALLOCATEBY", "tag:region,freespace"),
        ("CLUSTER_TAGS_TAGS", "region:us,group:a"),
        ("CLUSTER_METRICS_ENABLESTATS", "T"),
        ("CLUSTER_SECRET", ""),
    ]);
    let loaded = load_text(ORIGINAL, &environment).unwrap();
    let config = loaded.config;
    assert_eq!(config.cluster.peer_name, "other");
    assert_eq!(config.cluster.replication, ReplicationFactor::Between { min: 2, max: 3 });
    assert_eq!(config.cluster.connections.high_water, 200);
    assert_eq!(config.cluster.listen_addresses.len(), 2);
    let rest = config.rest_api.unwrap();
    assert_eq!(rest.basic_auth.unwrap()["bob"].reveal(), "two");
    assert!(rest.cors.allowed_origins.is_empty());
    assert_eq!(config.allocator.allocate_by, ["tag:region", "freespace"]);
    assert_eq!(config.informers.tags.unwrap().tags["region"], "us");
    assert!(config.telemetry.enabled);
    assert!(config.cluster.secret.is_none(), "set but empty counts as set");
    assert!(loaded.remarks.iter().any(|line| line.contains("open to everyone")));
}

#[test]
fn a_bad_value_is_refused_with_key_value_and_place() {
    let text = changed(|file| file["cluster"]["dial_peer_timeout"] = json!("soon"));
    let message = failure(&text, &Variables::new());
    assert!(message.contains("cluster.dial_peer_timeout = \"soon\""), "{message}");
    assert!(message.contains("service.json"), "{message}");

    let message = failure(ORIGINAL, &variables(&[("CLUSTER_MONITORPINGINTERVAL", "0s")]));
    assert!(message.contains("environment variable CLUSTER_MONITORPINGINTERVAL"), "{message}");

    for (name, value) in [
        ("CLUSTER_LEAVEONSHUTDOWN", "perhaps"),
        ("CLUSTER_CONNECTIONMANAGER_LOWWATER", "500"),
        ("CLUSTER_LISTENMULTIADDRESS", "127.0.0.1:9096"),
        ("CLUSTER_LISTENMULTIADDRESS", "/ip4/127.0.0.1/udp/9096/quic"),
        ("CLUSTER_REPLICATIONFACTORMIN", "3"),
        ("CLUSTER_REPLICATIONFACTORMIN", "99999999999"),
        ("CLUSTER_PINONLYONTRUSTEDPEERS", "x"),
        ("CLUSTER_CRDT_TRUSTEDPEERS", "nobody"),
        ("CLUSTER_CRDT_HEARTBEATINTERVAL", "5s"),
        ("CLUSTER_PUBSUB_HISTORYGOSSIP", "7"),
        ("CLUSTER_ID", "nobody"),
        ("CLUSTER_CRDT_MAXVOTERS", "0"),
        ("CLUSTER_RESTAPI_MAXHEADERBYTES", "100"),
        ("CLUSTER_RESTAPI_SSLCERTFILE", "cert.pem"),
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", ""),
        ("CLUSTER_STATELESS_CONCURRENTPINS", "-1"),
        ("CLUSTER_DISK_METRICTYPE", "weight"),
        ("CLUSTER_TRACING_SAMPLINGPROB", "2"),
        ("CLUSTER_TAGS_TAGS", "a:b:c"),
    ] {
        let message = failure(ORIGINAL, &variables(&[(name, value)]));
        assert!(
            message.contains(name) || message.contains(&format!("{value:?}")) || message.contains("cluster."),
            "{message}"
        );
    }
}

#[test]
fn secrets_stay_out_of_errors_and_debug_output() {
    let message = failure(ORIGINAL, &variables(&[("CLUSTER_SECRET", "c0ffee")]));
    assert!(message.contains("input secret is 3 bytes, cluster secret should be 32"), "{message}");
    assert!(!message.contains("c0ffee"), "{message}");
    let environment = variables(&[("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:swordfish")]);
    let config = load_text(ORIGINAL, &environment).unwrap().config;
    let debug = format!("{config:?}");
    assert!(!debug.contains("swordfish") && !debug.contains("0c0d0e0f"), "{debug}");
    assert!(debug.contains("XXX_hidden_XXX"), "{debug}");
}

#[test]
fn absence_means_what_the_original_makes_of_it() {
    let none = &Variables::new();
    let text = changed(|file| remove(file, "/cluster", "disable_repinning"));
    assert!(load_text(&text, none).unwrap().config.cluster.repinning);
    let text = changed(|file| remove(file, "/cluster", "listen_multiaddress"));
    assert!(failure(&text, none).contains("cluster.listen_multiaddress is undefined"));
    let text = changed(|file| remove(file, "/cluster/connection_manager", "high_water"));
    assert!(failure(&text, none).contains("cluster.connection_manager.high_water"));
    let text = changed(|file| remove(file, "/cluster", "connection_manager"));
    assert_eq!(load_text(&text, none).unwrap().config.cluster.connections.high_water, 400);
    let text = changed(|file| remove(file, "/consensus/crdt", "trusted_peers"));
    let loaded = load_text(&text, none).unwrap();
    assert!(
        loaded.remarks.iter().any(|line| line.contains("trusted_peers is missing or empty")),
        "nobody is trusted: {:?}",
        loaded.remarks
    );
    let text = changed(|file| remove(file, "/allocator", "balanced"));
    assert_eq!(load_text(&text, none).unwrap().config.allocator.allocate_by, ["freespace"]);
    let text = changed(|file| remove(file, "/api", "restapi"));
    assert!(load_text(&text, none).unwrap().config.rest_api.is_none());
    let text = changed(|file| file["informer"] = json!({}));
    assert!(failure(&text, none).contains("no informers are passed"));
    let text = changed(|file| file["consensus"]["raft"] = json!({}));
    assert!(failure(&text, none).contains("could not determine the consensus component"));
    let text = changed(|file| file["datastore"]["badger3"] = json!({}));
    assert!(failure(&text, none).contains("unknown datastore"));
    let text = changed(|file| file["monitor"]["pubsubmon"] = json!({}));
    assert!(failure(&text, none).contains("monitor.pubsubmon.check_interval"));
}

#[test]
fn what_is_not_a_configuration_is_refused() {
    let none = &Variables::new();
    let (_place, folder) = temporary_folder();
    assert!(matches!(load(&folder, none), Err(ConfigError::Missing { .. })));
    for text in
        ["", "{", "[]", "\u{0}", "{\"cluster\": 1}", "{\"cluster\": {\"pubsub\": 1}}", "{\"api\": {\"restapi\": 1}}"]
    {
        assert!(load_text(text, none).is_err(), "{text:?}");
    }
    let message = failure("{\"source\": \"http://127.0.0.1:1/c.json\"}", none);
    assert!(message.contains("http://127.0.0.1:1/c.json"), "{message}");
}

#[test]
fn a_new_configuration_is_read_back_as_it_was_meant() {
    let (_place, folder) = temporary_folder();
    let none = &Variables::new();
    let new = NewConfig { node: NodeKind::Embedded, ..NewConfig::with_new_secret() };
    let loaded = new.write(&folder, none).unwrap();
    assert_eq!(loaded.config.cluster.secret.as_ref(), Some(&new.secret));
    assert!(loaded.config.cluster.repinning);
    assert!(!loaded.remarks.iter().any(|line| line.starts_with("unknown")), "{:?}", loaded.remarks);
    let IpfsConfig::Embedded(node) = loaded.config.ipfs else { panic!("an embedded node was asked for") };
    assert_eq!(node.storage_max, ByteSize(10_000_000_000));
    let mode = fs::metadata(folder.config_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(folder.config_file()).unwrap();
    assert!(text.starts_with("{\n  \"cluster\": {\n    \"peername\""), "{text}");
    assert!(text.contains("\"announce_multiaddress\": [],"), "{text}");
}

#[test]
fn a_new_configuration_takes_the_wishes_of_the_environment() {
    let (_place, folder) = temporary_folder();
    let environment = variables(&[("CLUSTER_PEERNAME", "blue"), ("CLUSTER_PEERSTOREFILE", "friends")]);
    NewConfig::with_new_secret().write(&folder, &environment).unwrap();
    let config = load(&folder, &Variables::new()).unwrap().config;
    assert_eq!(config.cluster.peer_name, "blue");
    assert_eq!(config.cluster.peerstore_file, folder.file("friends"));
}

#[test]
fn what_a_peer_would_refuse_is_not_written() {
    let (_place, folder) = temporary_folder();
    let wrong = variables(&[("CLUSTER_DISK_METRICTYPE", "weight")]);
    assert!(NewConfig::with_new_secret().write(&folder, &wrong).is_err());
    assert!(!folder.config_file().exists());
    NewConfig::with_new_secret().write(&folder, &Variables::new()).unwrap();
    let before = fs::read(folder.config_file()).unwrap();
    assert!(NewConfig::with_new_secret().write(&folder, &wrong).is_err());
    assert_eq!(fs::read(folder.config_file()).unwrap(), before);
}

#[test]
fn an_old_configuration_still_tells_who_the_peer_is() {
    let (_place, folder) = temporary_folder();
    let none = &Variables::new();
    let known = || IdentitySource::of_folder(&folder, none).unwrap().legacy.map(|(peer, _)| peer);
    assert!(known().is_none());
    folder.create().unwrap();
    fs::write(folder.config_file(), "no JSON").unwrap();
    assert!(known().is_none());
    let old = cluster_net::Identity::generate();
    let file = json!({"cluster": {"id": old.peer().to_string(), "private_key": old.reveal_private_key()}});
    fs::write(folder.config_file(), file.to_string()).unwrap();
    assert_eq!(known(), Some(old.peer()));
}

#[test]
fn what_somebody_asks_for_comes_before_the_environment_in_what_is_written() {
    let (_place, folder) = temporary_folder();
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let environment = variables(&[("CLUSTER_SECRET", &"ab".repeat(32)), ("CLUSTER_CRDT_TRUSTEDPEERS", "*")]);
    let mut new = NewConfig::with_new_secret();
    let written = |new: &NewConfig| -> Value {
        new.write(&folder, &environment).unwrap();
        serde_json::from_slice(&fs::read(folder.config_file()).unwrap()).unwrap()
    };
    let file = written(&new);
    assert_eq!(file["cluster"]["secret"], "ab".repeat(32));
    assert_eq!(file["consensus"]["crdt"]["trusted_peers"], json!(["*"]));
    new.secret_is_chosen = true;
    new.peers = vec![peer.parse().unwrap()];
    let file = written(&new);
    assert_eq!(file["cluster"]["secret"], new.secret.to_hex());
    assert_eq!(file["consensus"]["crdt"]["trusted_peers"], json!([peer]));
}

#[test]
fn every_datastore_that_is_written_is_read() {
    for datastore in [DatastoreName::Pebble, DatastoreName::Badger3, DatastoreName::Badger, DatastoreName::LevelDb] {
        let (_place, folder) = temporary_folder();
        let loaded = NewConfig { datastore, ..NewConfig::with_new_secret() }.write(&folder, &Variables::new()).unwrap();
        assert!(loaded.remarks.iter().all(|remark| !remark.contains("datastore")), "{:?}", loaded.remarks);
    }
}

#[test]
fn known_peers_become_the_trusted_ones_and_the_first_members() {
    let peer = cluster_types::parse_peer_id("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA").unwrap();
    let none = &Variables::new();
    let mut new = NewConfig { peers: vec![peer], ..NewConfig::with_new_secret() };
    let (_place, folder) = temporary_folder();
    let mode = new.write(&folder, none).unwrap().config.consensus.mode;
    assert_eq!(
        mode,
        ConsensusMode::Crdt { trusted: TrustedPeers::Only(vec![peer]), commit_timeout: Duration::from_secs(2) }
    );
    new.consensus = ConsensusName::Raft;
    let mode = new.write(&folder, none).unwrap().config.consensus.mode;
    let ConsensusMode::Raft { initial_peers, .. } = mode else { panic!("raft was asked for") };
    assert_eq!(initial_peers, [peer]);
}

#[test]
fn a_member_may_trust_some_and_give_pins_to_those_or_to_the_others() {
    let none = &Variables::new();
    for (key, name, wanted) in [
        ("pin_only_on_trusted_peers", "CLUSTER_PINONLYONTRUSTEDPEERS", Holders::Trusted),
        ("pin_only_on_untrusted_peers", "CLUSTER_PINONLYONUNTRUSTEDPEERS", Holders::Untrusted),
    ] {
        let holders = |loaded: Loaded| crate::wire::holders(&loaded.config.cluster);
        assert_eq!(holders(load_text(ORIGINAL, none).unwrap()), Holders::All);
        let text = changed(|file| file["cluster"][key] = json!(true));
        assert_eq!(holders(load_text(&text, none).unwrap()), wanted);
        assert_eq!(holders(load_text(ORIGINAL, &variables(&[(name, "true")])).unwrap()), wanted);
    }
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let trust = |list: Value| {
        let text = changed(|file| file["consensus"]["crdt"]["trusted_peers"] = list);
        let loaded = load_text(&text, none).unwrap();
        assert!(!loaded.remarks.iter().any(|line| line.contains("trusted_peers")), "{:?}", loaded.remarks);
        crate::wire::consensus(&loaded.config).trust
    };
    let id = cluster_types::parse_peer_id(peer).unwrap();
    assert_eq!(trust(json!([peer])), Trust::Only([id].into()));
    assert_eq!(trust(json!([peer, "*"])), Trust::Everyone);
}

/// A value of the field's kind that is not its default and can be used.
fn another(component: &Component, field: &Field) -> Value {
    let default: Value = serde_json::from_str(field.default).unwrap();
    match field.kind {
        Kind::Bool => json!(default != json!(true)),
        Kind::Whole => json!(default.as_i64().unwrap() + 1),
        Kind::Fraction => json!(0.5),
        Kind::Duration => json!("1h1m"),
        Kind::Addresses => json!(["/ip4/127.0.0.1/tcp/1"]),
        Kind::Texts => json!(["x"]),
        Kind::Text | Kind::Secret => json!("x"),
        Kind::TextMap | Kind::Credentials | Kind::Headers | Kind::Size | Kind::Ignored => {
            panic!("{}: no other value is known", component.full_key(field.key))
        }
    }
}

#[test]
fn what_is_set_and_has_no_effect_is_named_in_one_remark() {
    let mut file: Value = serde_json::from_str(ORIGINAL).unwrap();
    let mut expected = Vec::new();
    for component in COMPONENTS {
        for field in component.fields.iter().filter(|field| !field.served) {
            let parts = component.path();
            let parts = parts.split('.').chain(field.key.split('.'));
            *parts.fold(&mut file, |object, part| &mut object[part]) = another(component, field);
            expected.push(component.full_key(field.key));
        }
    }
    assert!(expected.len() > 5, "the table marks them");
    let remarks = load_text(&file.to_string(), &Variables::new()).unwrap().remarks;
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    let named = remarks[0].split_once(": ").unwrap().1;
    let named: BTreeSet<&str> = named.split(", ").collect();
    assert_eq!(named, expected.iter().map(String::as_str).collect());
    // Other spellings of a default are no wish.
    let text = changed(|file| {
        file["api"]["restapi"]["read_timeout"] = json!("0m0s");
        file["cluster"]["pubsub"]["heartbeat_interval"] = json!("10000ms");
        file["cluster"]["peer_addresses"] = json!("");
        file["observations"]["metrics"]["prometheus_endpoint"] = json!(["/ip4/127.0.0.1/tcp/8888"]);
        file["api"]["restapi"]["cors_allowed_origins"] = json!(["*"]);
    });
    let remarks = load_text(&text, &Variables::new()).unwrap().remarks;
    assert_eq!(remarks, [] as [&str; 0]);
    let remarks = load_text(ORIGINAL, &variables(&[("CLUSTER_TRACING_ENABLETRACING", "true")])).unwrap().remarks;
    assert!(remarks[0].contains("observations.tracing.enable_tracing"), "{remarks:?}");
}

#[test]
fn a_proxy_that_others_reach_is_named_and_one_before_itself_refused() {
    let listening = |address: &str| {
        let text = changed(|file| file["api"]["ipfsproxy"]["listen_multiaddress"] = json!(address));
        load_text(&text, &Variables::new())
    };
    let remarks = listening("/ip4/0.0.0.0/tcp/9095").unwrap().remarks;
    assert!(remarks[0].contains("everyone who can reach /ip4/0.0.0.0/tcp/9095 may pin"), "{remarks:?}");
    let message = listening("/ip4/127.0.0.1/tcp/5001").unwrap_err().to_string();
    assert!(message.contains("api.ipfsproxy.node_multiaddress") && message.contains("the proxy itself"), "{message}");
    for (key, bad) in [("extract_headers_extra", json!(["a b"])), ("extract_headers_path", json!("version"))] {
        let text = changed(|file| file["api"]["ipfsproxy"][key] = bad);
        let message = load_text(&text, &Variables::new()).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn a_unix_socket_is_an_address() {
    let text = changed(|file| file["api"]["restapi"]["http_listen_multiaddress"] = json!("/unix/run/cluster/api.sock"));
    let rest = load_text(&text, &Variables::new()).unwrap().config.rest_api.unwrap();
    assert_eq!(rest.listen_addresses, [cluster_types::parse_address("/unix/run/cluster/api.sock").unwrap()]);
}

#[test]
fn a_variable_that_is_no_text_is_refused() {
    struct Bytes;
    impl Environment for Bytes {
        fn variable(&self, name: &str) -> Option<Result<String, NotText>> {
            (name == "CLUSTER_PEERNAME").then_some(Err(NotText))
        }
    }
    let (_place, folder) = temporary_folder();
    fs::write(folder.config_file(), ORIGINAL).unwrap();
    let message = load(&folder, &Bytes).unwrap_err().to_string();
    assert!(message.contains("cluster.peername") && message.contains("CLUSTER_PEERNAME"), "{message}");
}

#[test]
fn random_ports_differ_from_the_usual_ones() {
    let (_place, folder) = temporary_folder();
    let new = NewConfig { random_ports: true, ..NewConfig::with_new_secret() };
    let config = new.write(&folder, &Variables::new()).unwrap().config;
    let usual = ["/tcp/9094", "/tcp/9095", "/tcp/9096", "/tcp/9097"];
    let debug = format!("{:?}{:?}", config.rest_api.unwrap().listen_addresses, config.cluster.listen_addresses);
    assert!(!usual.iter().any(|port| debug.contains(port)), "{debug}");
}

#[test]
fn one_process_at_a_time_works_in_a_folder() {
    let (_place, folder) = temporary_folder();
    let lock = ExecutionLock::acquire(&folder).unwrap();
    let message = ExecutionLock::acquire(&folder).unwrap_err().to_string();
    assert!(message.contains("cluster.lock is held by another process"), "{message}");
    drop(lock);
    ExecutionLock::acquire(&folder).unwrap();
}

#[test]
fn the_defaults_of_the_table_are_json() {
    for component in COMPONENTS {
        for field in component.fields {
            let key = component.full_key(field.key);
            serde_json::from_str::<Value>(field.default).unwrap_or_else(|error| panic!("{key}: {error}"));
            if let Absence::Json(json) = field.absence {
                serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{key}: {error}"));
            }
        }
    }
}
