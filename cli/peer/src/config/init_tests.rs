//! What `init` writes, as files; and against the default file of the original, key by key.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const CRDT: &str = include_str!("fixtures/init-crdt.json");
const RAFT: &str = include_str!("fixtures/init-raft.json");
const EMBEDDED: &str = include_str!("fixtures/init-embedded.json");

fn written(new: &NewConfig) -> String {
    let place = tempfile::tempdir().unwrap();
    let folder = ConfigFolder::new(place.path());
    let environment = BTreeMap::from([("CLUSTER_PEERNAME".to_owned(), "golden".to_owned())]);
    new.write(&folder, &environment).unwrap();
    std::fs::read_to_string(folder.config_file()).unwrap()
}

fn new() -> NewConfig {
    let secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".parse().unwrap();
    NewConfig { secret, ..NewConfig::with_new_secret() }
}

/// Every key with its value; objects go into their keys, lists are values.
fn flat(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut rest = vec![(String::new(), serde_json::from_str::<Value>(text).unwrap())];
    while let Some((place, value)) = rest.pop() {
        if let Some(entries) = value.as_object().filter(|entries| !entries.is_empty()) {
            rest.extend(entries.iter().map(|(key, value)| (format!("{place}.{key}"), value.clone())));
        } else {
            found.insert(place.trim_start_matches('.').to_owned(), value);
        }
    }
    found
}

/// The keys that are not the same in both, each with both values.
fn differences(one: &str, other: &str) -> Vec<String> {
    let (one, other) = (flat(one), flat(other));
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    let text = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), Value::to_string);
    let differs = keys.into_iter().filter(|key| one.get(*key) != other.get(*key));
    differs.map(|key| format!("{key}: {} -> {}", text(one.get(key)), text(other.get(key)))).collect()
}

#[test]
fn init_writes_the_golden_files() {
    let raft = NewConfig { consensus: ConsensusName::Raft, ..new() };
    let embedded = NewConfig { node: NodeKind::Embedded, ..new() };
    for (name, golden, new) in [("crdt", CRDT, new()), ("raft", RAFT, raft), ("embedded", EMBEDDED, embedded)] {
        let text = written(&new);
        assert_eq!(differences(golden, &text), [""; 0], "{name}; the whole file is\n{text}");
        assert_eq!(golden, text, "{name}: the order or the layout");
    }
}

#[test]
fn what_init_writes_differs_from_the_original_in_known_keys_only() {
    let of_pebble = |key: &String| !key.starts_with("datastore.");
    let crdt: Vec<String> =
        differences(include_str!("fixtures/original-pebble.json"), CRDT).into_iter().filter(of_pebble).collect();
    let shared = ["cluster.disable_repinning: true -> false", "cluster.peername: \"archive-1\" -> \"golden\""];
    let own = |consensus: &str| {
        [
            ("election_timeout_max", "2s"),
            ("election_timeout_min", "1s"),
            ("heartbeat_interval", "250ms"),
            ("voter_grace_period", "10m0s"),
        ]
        .map(|(key, value)| format!("consensus.{consensus}.{key}: - -> \"{value}\""))
    };
    let missing = |found: &[String], wanted: &[String]| -> Vec<String> {
        let odd = found
            .iter()
            .filter(|line| !wanted.contains(line))
            .chain(wanted.iter().filter(|line| !found.contains(line)));
        odd.cloned().collect()
    };
    let mut wanted: Vec<String> = shared.map(str::to_owned).into();
    wanted.push("cluster.repinning_grace_period: - -> \"1m0s\"".to_owned());
    let mut of_crdt = wanted.clone();
    of_crdt.extend(own("crdt"));
    of_crdt.push("consensus.crdt.max_voters: - -> 5".to_owned());
    of_crdt.push("consensus.crdt.commit_timeout: - -> \"2s\"".to_owned());
    // Without meaning here, and the defaults there.
    of_crdt.push("consensus.crdt.batching.max_batch_size: 0 -> -".to_owned());
    of_crdt.push("consensus.crdt.batching.max_batch_age: \"0s\" -> -".to_owned());
    of_crdt.push("consensus.crdt.repair_interval: \"1h0m0s\" -> -".to_owned());
    assert_eq!(missing(&crdt, &of_crdt), [""; 0]);
    let embedded: Vec<String> = differences(CRDT, EMBEDDED);
    assert!(embedded.iter().all(|line| line.starts_with("ipfs_connector.")), "{embedded:?}");
    let raft = differences(include_str!("fixtures/original-raft.json"), RAFT);
    let outside: Vec<String> = raft.iter().filter(|line| !line.starts_with("consensus.")).cloned().collect();
    assert_eq!(missing(&outside, &wanted), [""; 0]);
}
