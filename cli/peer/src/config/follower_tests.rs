//! What a follower's configuration leads to.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::*;

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

type Variables = BTreeMap<String, String>;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A folder with the original's file after a change.
fn folder(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, ConfigFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path().join("maps"));
    folder.create().unwrap();
    let mut file: Value = serde_json::from_str(include_str!("fixtures/original-pebble.json")).unwrap();
    change(&mut file);
    fs::write(folder.config_file(), file.to_string()).unwrap();
    (place, folder)
}

fn shown(addresses: &[cluster_types::Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_follower_serves_its_socket_and_nothing_else_whatever_the_cluster_configures() {
    let (_place, folder) = folder(|file| {
        file["cluster"]["follower_mode"] = json!(false);
        file["consensus"]["crdt"]["trusted_peers"] = json!([PEER]);
        file["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": "swordfish"});
        file["observations"]["metrics"]["enable_stats"] = json!(true);
    });
    let variables = variables(&[("CLUSTER_FOLLOWERMODE", "false"), ("CLUSTER_METRICS_ENABLESTATS", "true")]);
    let config = load_follower(&folder, &variables).unwrap().config;
    assert!(config.cluster.follower_mode && !config.cluster.collects_for_others && !config.telemetry.enabled);
    assert!(config.ipfs_proxy.is_none() && config.pinning_service.is_none());
    let rest = config.rest_api.unwrap();
    let path = folder.api_socket().display().to_string();
    let socket = cluster_types::parse_address(&format!("/unix/{}", path.trim_start_matches('/'))).unwrap();
    let socket = socket.to_string();
    assert_eq!((shown(&rest.listen_addresses), rest.basic_auth.is_none()), (vec![socket.clone()], true));
    assert_eq!(shown(&follower_api(&folder, &variables).unwrap().addresses), [socket]);
}

#[test]
fn the_environment_may_name_another_address() {
    let (_place, folder) = folder(|_| {});
    let variables = variables(&[("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/9999")]);
    let rest = load_follower(&folder, &variables).unwrap().config.rest_api.unwrap();
    assert_eq!(shown(&rest.listen_addresses), ["/ip4/127.0.0.1/tcp/9999"]);
    assert_eq!(follower_api(&folder, &variables).unwrap().addresses, rest.listen_addresses);
}

#[test]
fn whoever_asks_a_follower_knows_its_password_and_speaks_tls() {
    let (_place, folder) = folder(|_| {});
    let open = follower_api(&folder, &Variables::new()).unwrap();
    assert!(open.basic_auth.is_none() && !open.has_tls);
    let variables = variables(&[
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:swordfish"),
        ("CLUSTER_RESTAPI_SSLCERTFILE", "c.pem"),
    ]);
    let guarded = follower_api(&folder, &variables).unwrap();
    assert_eq!(guarded.basic_auth.unwrap()["ann"].reveal(), "swordfish");
    assert!(guarded.has_tls);
}

#[test]
fn a_follower_must_trust_somebody() {
    let (_place, folder) = folder(|file| file["consensus"]["crdt"]["trusted_peers"] = json!([]));
    let error = load_follower(&folder, &Variables::new()).unwrap_err().to_string();
    assert!(error.contains("consensus.crdt.trusted_peers") && error.contains("name at least one"), "{error}");
}

#[test]
fn a_filter_is_read_from_file_and_environment() {
    let (_place, folder) = folder(|file| {
        file["cluster"]["follower_mode"] = json!(true);
        file["cluster"]["follower_filter"] = json!({"names": ["maps-*"], "metadata": {"team": "a"}, "share": "2/5"});
    });
    let loaded = load(&folder, &Variables::new()).unwrap();
    assert!(!loaded.remarks.iter().any(|line| line.contains("follower_filter")), "{:?}", loaded.remarks);
    let filter = loaded.config.cluster.follower_filter;
    assert_eq!(
        (filter.names.as_slice(), filter.share.map(|share| share.to_string())),
        (&["maps-*".to_owned()][..], Some("2/5".to_owned()))
    );
    assert_eq!(filter.metadata, variables(&[("team", "a")]));
    let share = variables(&[("CLUSTER_FOLLOWERFILTER_SHARE", "1/2"), ("CLUSTER_FOLLOWERFILTER_NAMES", "a,b*")]);
    let filter = load(&folder, &share).unwrap().config.cluster.follower_filter;
    assert_eq!((filter.names.len(), filter.share.map(|share| share.to_string())), (2, Some("1/2".to_owned())));
    let error = load(&folder, &variables(&[("CLUSTER_FOLLOWERFILTER_SHARE", "3/2")])).unwrap_err().to_string();
    assert!(error.contains("cluster.follower_filter.share") && error.contains("2/5"), "{error}");
}

#[test]
fn a_source_is_written_and_found_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path().join("maps"));
    write_source(&folder, "http://127.0.0.1:1/c.json").unwrap();
    let text = fs::read_to_string(folder.config_file()).unwrap();
    assert_eq!(text, "{\n  \"source\": \"http://127.0.0.1:1/c.json\"\n}\n");
    assert_eq!(source_of(&folder).unwrap().as_deref(), Some("http://127.0.0.1:1/c.json"));
    assert!(matches!(load_follower(&folder, &Variables::new()), Err(ConfigError::SourceUnreachable { .. })));
    let kubo =
        kubo_of_environment(&variables(&[("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", "/ip4/10.0.0.1/tcp/1")])).unwrap();
    assert!(matches!(kubo, IpfsConfig::Kubo(kubo) if kubo.node_address.to_string() == "/ip4/10.0.0.1/tcp/1"));
}
