//! Files of ipfs-cluster, of several releases and with every storage engine, and all its keys and variables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cluster_types::ErrorChain;
use serde_json::{Value, json};

use super::environment::variable_name;
use super::table::{COMPONENTS, Component, Field, Kind};
use super::*;

const PEBBLE: &str = include_str!("fixtures/original-pebble.json");
const RAFT: &str = include_str!("fixtures/original-raft.json");

type Variables = BTreeMap<String, String>;

fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path());
    fs::write(folder.config_file(), text).unwrap();
    let variables: Variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    load(&folder, &variables)
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(text).unwrap();
    change(&mut file);
    file.to_string()
}

fn line<'a>(remarks: &'a [String], start: &str) -> &'a str {
    remarks.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {remarks:?}"))
}

#[test]
fn the_default_files_of_the_original_load_and_nothing_in_them_is_without_meaning() {
    for text in [
        PEBBLE,
        RAFT,
        include_str!("fixtures/original-badger3.json"),
        include_str!("fixtures/original-badger.json"),
        include_str!("fixtures/original-leveldb.json"),
    ] {
        assert_eq!(load_text(text, &[]).unwrap().remarks, [] as [&str; 0]);
    }
    assert_eq!(load_text(RAFT, &[]).unwrap().config.consensus.snapshot_threshold, 8192);
}

#[test]
fn a_file_of_release_0_10_loads_with_its_identity() {
    let identity = cluster_net::Identity::generate();
    let text = include_str!("fixtures/original-0.10.json");
    let text = text.replace("@ID@", &identity.peer().to_string()).replace("@KEY@", identity.reveal_private_key());
    let loaded = load_text(&text, &[]).unwrap();
    assert_eq!(loaded.config.cluster.identity.legacy.unwrap().0, identity.peer());
    assert_eq!(loaded.config.allocator.allocate_by, ["freespace"]);
    let unknown = line(&loaded.remarks, "unknown keys");
    for key in ["cluster.ipfs_sync_interval", "pin_tracker.maptracker", "monitor.monbasic", "ipfshttp.pin_method"] {
        assert!(unknown.contains(key), "{unknown}");
    }
}

#[test]
fn every_key_of_the_reference_is_in_the_table() {
    let known: BTreeSet<String> = COMPONENTS
        .iter()
        .flat_map(|component| component.fields.iter().map(|field| component.full_key(field.key)))
        .collect();
    let reference: Vec<&str> = include_str!("fixtures/reference-keys.txt").lines().collect();
    assert_eq!(reference.len(), 248, "somebody shortened the list");
    let missing: Vec<&&str> = reference.iter().filter(|key| !known.contains(**key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_has_no_meaning_here_is_named_with_the_place_of_the_state() {
    let text = changed(PEBBLE, |file| {
        file["datastore"]["pebble"]["folder"] = json!("/bigdisk/pebble");
        file["datastore"]["pebble"]["pebble_options"]["max_open_files"] = json!(5);
        file["datastore"]["pebble"]["pebble_options"]["levels"][6]["block_size"] = json!(1);
        file["consensus"]["crdt"]["batching"]["max_batch_size"] = json!(100);
        // Another spelling of the default.
        file["consensus"]["crdt"]["repair_interval"] = json!("60m");
    });
    let variables = [("CLUSTER_CRDT_BATCHING_MAXBATCHAGE", "1s"), ("CLUSTER_PEBBLE_PEBBLEOPTIONS_CACHESIZEBYTES", "7")];
    let loaded = load_text(&text, &variables).unwrap();
    let place = loaded.config.state_folder.display().to_string();
    let expected = "set, but without meaning here: consensus.crdt.batching.max_batch_size, datastore.pebble.folder, \
                    datastore.pebble.pebble_options.max_open_files, datastore.pebble.pebble_options.levels, \
                    CLUSTER_CRDT_BATCHING_MAXBATCHAGE, CLUSTER_PEBBLE_PEBBLEOPTIONS_CACHESIZEBYTES; the state is in ";
    assert_eq!(line(&loaded.remarks, "set, but"), format!("{expected}{place}"));
    let text = changed(RAFT, |file| file["consensus"]["raft"]["data_folder"] = json!("/bigdisk"));
    let remarks = load_text(&text, &[]).unwrap().remarks;
    assert!(line(&remarks, "set, but").contains("consensus.raft.data_folder; the state is in "), "{remarks:?}");
    let text = changed(RAFT, |file| file["consensus"]["raft"]["trailing_logs"] = json!(5));
    let remarks = load_text(&text, &[]).unwrap().remarks;
    assert!(line(&remarks, "set, but").ends_with(": consensus.raft.trailing_logs"), "{remarks:?}");
}

#[test]
fn one_address_that_is_not_announced_may_be_a_text_as_the_original_writes_it() {
    let with = |value: Value| changed(PEBBLE, |file| file["cluster"]["no_announce_multiaddress"] = value);
    let config = load_text(&with(json!("/ip4/10.0.0.0/ipcidr/8")), &[]).unwrap().config;
    assert_eq!(config.cluster.no_announce_addresses, ["/ip4/10.0.0.0/ipcidr/8".parse().unwrap()]);
    let message = ErrorChain(&load_text(&with(json!(["10.0.0.1"])), &[]).unwrap_err()).to_string();
    assert!(message.starts_with("cluster.no_announce_multiaddress = [\"10.0.0.1\"] ("), "{message}");
    assert!(message.contains("service.json"), "{message}");
}

#[test]
fn what_would_be_refused_later_is_refused_with_its_key_and_place() {
    for (section, key, value, part) in [
        ("/cluster", "peer_addresses", json!(["/ip4/10.0.0.1/tcp/9096"]), "must end in /p2p/"),
        ("/cluster", "announce_multiaddress", json!(["/ip4/10.0.0.1/tcp/9096", "x"]), "; \"x\" is none"),
        ("/api/restapi", "http_listen_multiaddress", json!("/ip4/127.0.0.1/udp/1"), "cannot listen on"),
        ("/api/restapi", "headers", json!({"a b": ["x"]}), "\"a b\" is not the name of a header"),
        ("/api/restapi", "headers", json!({"a": ["x\ny"]}), "cannot be the value of the header a"),
        ("/ipfs_connector/ipfshttp", "node_multiaddress", json!("/ip4/127.0.0.1/udp/5001"), "write it like"),
        ("/cluster", "id", json!("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"), "cluster.private_key"),
    ] {
        let text = changed(PEBBLE, |file| file.pointer_mut(section).unwrap()[key] = value);
        let message = load_text(&text, &[]).unwrap_err().to_string();
        let full = format!("{}.{key} = ", section[1..].replace('/', "."));
        assert!(message.starts_with(&full) && message.contains("service.json") && message.contains(part), "{message}");
    }
    let [own, other] = [cluster_net::Identity::generate(), cluster_net::Identity::generate()];
    let pair = [("CLUSTER_ID", &*own.peer().to_string()), ("CLUSTER_PRIVATEKEY", other.reveal_private_key())];
    let message = load_text(PEBBLE, &pair).unwrap_err().to_string();
    assert!(
        message.contains("cluster.private_key = XXX_hidden_XXX (environment variable CLUSTER_PRIVATEKEY)"),
        "{message}"
    );
}

#[test]
fn nothing_stands_for_the_default_where_the_original_takes_it_so() {
    let text = changed(PEBBLE, |file| {
        file["consensus"]["crdt"]["cluster_name"] = json!("");
        file["consensus"]["crdt"]["batching"] = json!(null);
        file["api"]["restapi"]["max_header_bytes"] = json!(0);
        file["api"]["restapi"]["http_listen_multiaddress"] = json!([]);
    });
    let config = load_text(&text, &[]).unwrap().config;
    assert_eq!(config.consensus.cluster_name, "ipfs-cluster");
    let rest = config.rest_api.unwrap();
    assert_eq!(rest.max_header_bytes, 4096);
    assert_eq!(rest.listen_addresses[0].to_string(), "/ip4/127.0.0.1/tcp/9094");
    for (wait, threshold) in [(json!("0s"), json!(0)), (json!("soon"), json!(0))] {
        let text = changed(RAFT, |file| {
            file["consensus"]["raft"]["wait_for_leader_timeout"] = wait;
            file["consensus"]["raft"]["snapshot_threshold"] = threshold;
        });
        let loaded = load_text(&text, &[]).unwrap();
        let line = line(&loaded.remarks, "values that cannot be used");
        assert!(line.contains("wait_for_leader_timeout") && line.contains("snapshot_threshold"), "{line}");
        assert_eq!(loaded.config.consensus.snapshot_threshold, 8192);
        let ConsensusMode::Raft { leader_timeout, .. } = loaded.config.consensus.mode else { panic!("raft") };
        assert_eq!(leader_timeout.as_secs(), 15);
    }
}

#[test]
fn listen_addresses_that_are_not_kept_are_named() {
    let listen = |addresses: Value| changed(PEBBLE, |file| file["cluster"]["listen_multiaddress"] = addresses);
    let text = listen(json!(["/ip4/0.0.0.0/tcp/9096", "/dns4/peer/tcp/9096", "/ip4/0.0.0.0/tcp/9097/ws"]));
    let loaded = load_text(&text, &[("CLUSTER_RESTAPI_IDLETIMEOUT", "0s")]).unwrap();
    assert_eq!(loaded.config.rest_api.as_ref().unwrap().timeouts.idle, None, "none, as in the original");
    assert_eq!(loaded.config.cluster.listen_addresses.len(), 1);
    let named = line(&loaded.remarks, "cluster.listen_multiaddress");
    assert!(named.ends_with("not on /dns4/peer/tcp/9096, /ip4/0.0.0.0/tcp/9097/ws"), "{named}");
    let error = load_text(&listen(json!(["/dns4/peer/tcp/9096"])), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cluster.listen_multiaddress = ") && error.contains("/ip4/0.0.0.0/tcp/9096"), "{error}");
}

#[test]
fn rules_about_whom_pins_are_given_load_on_members_and_followers() {
    for follows in [true, false] {
        let text = changed(PEBBLE, |file| {
            file["cluster"]["follower_mode"] = json!(follows);
            file["cluster"]["pin_only_on_trusted_peers"] = json!(true);
        });
        load_text(&text, &[]).unwrap();
    }
}

#[test]
fn an_empty_source_is_none_and_passwords_in_one_stay_hidden() {
    for none in [json!(""), json!(null)] {
        let remarks = load_text(&changed(PEBBLE, |file| file["source"] = none), &[]).unwrap().remarks;
        assert_eq!(remarks, [] as [&str; 0]);
    }
    let error = load_text(r#"{"source": "http://ann:swordfish@127.0.0.1:1/c.json"}"#, &[]).unwrap_err();
    let message = format!("{} {error:?}", ErrorChain(&error));
    assert!(message.contains("127.0.0.1:1/c.json") && !message.contains("swordfish"), "{message}");
}

/// A text that no field of this kind takes, where there is one: the error then names the variable.
fn bad_text(field: &Field) -> Option<&'static str> {
    match field.kind {
        Kind::Bool => Some("perhaps"),
        Kind::Whole | Kind::Fraction | Kind::Size => Some("many"),
        Kind::Duration => Some("soon"),
        Kind::Addresses => Some("nowhere"),
        Kind::TextMap | Kind::Credentials | Kind::Headers => Some("a:b:c"),
        Kind::Text | Kind::Secret | Kind::Texts | Kind::Ignored => None,
    }
}

/// A file that has every component which may stand beside the others.
fn file_for(component: &Component) -> String {
    let text = if component.path() == "consensus.raft" { RAFT } else { PEBBLE };
    changed(text, |file| {
        if component.name == "embedded" {
            file["ipfs_connector"] = json!({"embedded": {}});
        }
    })
}

#[test]
fn every_key_has_a_variable_that_is_read() {
    let mut seen = BTreeSet::new();
    for component in COMPONENTS {
        for field in component.fields {
            let name = variable_name(component, field);
            assert!(seen.insert(name.clone()), "{name} stands for two keys");
            // Takes whatever it says, or is never named.
            if field.key == "wait_for_leader_timeout" || field.default == "null" && field.kind == Kind::Ignored {
                continue;
            }
            if field.kind == Kind::Ignored {
                let remarks = load_text(&file_for(component), &[(&name, "7777")]).unwrap().remarks;
                assert!(line(&remarks, "set, but").contains(&name), "{name}: {remarks:?}");
            } else if let Some(bad) = bad_text(field) {
                let error = load_text(&file_for(component), &[(&name, bad)]);
                let message = error.map_or_else(|error| error.to_string(), |_| panic!("{name}: {bad} is taken"));
                assert!(message.contains(&format!("environment variable {name}")), "{name}: {message}");
            } else {
                let config = load_text(&file_for(component), &[(&name, "some,text")]);
                let shown = config.map_or_else(|error| error.to_string(), |loaded| format!("{:?}", loaded.config));
                let served = shown.contains("some,text") || shown.contains("\"some\"") || shown.contains("some/text");
                let served = served || shown.contains("all ID, private_key and libp2p_listen_multiaddress");
                assert!(served || shown.contains(&name) || shown.contains("XXX_hidden_XXX"), "{name}: {shown}");
            }
        }
    }
    assert!(seen.len() > 250, "{}", seen.len());
}

#[test]
fn a_host_over_libp2p_has_all_of_its_keys_and_they_fit() {
    let (one, other) = (cluster_net::Identity::generate(), cluster_net::Identity::generate());
    let load = |id: &str, key: &str, listen: &str| {
        let keys = [
            ("CLUSTER_RESTAPI_ID", id),
            ("CLUSTER_RESTAPI_PRIVATEKEY", key),
            ("CLUSTER_RESTAPI_LIBP2PLISTENMULTIADDRESS", listen),
        ];
        load_text(&changed(PEBBLE, |_| ()), &keys).map(|loaded| loaded.config.rest_api.unwrap().libp2p)
    };
    let (id, key, listen) = (one.peer().to_string(), one.reveal_private_key().to_owned(), "/ip4/127.0.0.1/tcp/9099");
    let host = load(&id, &key, listen).unwrap().unwrap();
    assert_eq!((host.peer, host.listen_addresses.len()), (one.peer(), 1));
    assert!(load("", "", "").unwrap().is_none());
    for (id, key, listen) in [(id.as_str(), key.as_str(), ""), ("", &key, listen), (&id, "", listen)] {
        let error = load(id, key, listen).unwrap_err().to_string();
        assert!(error.contains("all ID, private_key and libp2p_listen_multiaddress should be set"), "{error}");
    }
    let error = load(&other.peer().to_string(), &key, listen).unwrap_err().to_string();
    assert!(error.starts_with("api.restapi.private_key") && !error.contains(key.as_str()), "{error}");
    load("nobody", &key, listen).unwrap_err();
    load(&id, &key, "/ip4/127.0.0.1/udp/1/quic").unwrap_err();
}
