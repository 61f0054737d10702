//! What the original leaves behind, taken over: its configuration, identities, peerstore and exported state start three
//! daemons that are one cluster, whatever its consensus, storage engine, sections and release were.

use std::fs;
use std::process::Stdio;

use cluster_core::testing::linear::Told;
use cluster_net::Identity;
use cluster_tests::content::inline_cid;
use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT, free_port};
use cluster_tests::wait;
use serde_json::{Value, json};

use crate::client;

/// Pins of every kind that the original exports, one in a line, as it writes them.
const STATE: &str = include_str!("fixtures/original-state.jsonl");
const RAFT: &str = include_str!("../../cli/peer/src/config/fixtures/original-raft.json");
const PEBBLE: &str = include_str!("../../cli/peer/src/config/fixtures/original-pebble.json");
const BADGER3: &str = include_str!("../../cli/peer/src/config/fixtures/original-badger3.json");
const BADGER: &str = include_str!("../../cli/peer/src/config/fixtures/original-badger.json");
const LEVELDB: &str = include_str!("../../cli/peer/src/config/fixtures/original-leveldb.json");
const OLD: &str = include_str!("../../cli/peer/src/config/fixtures/original-0.10.json");
const ED25519_FILE: &str = include_str!("../../net/tests/golden/identity-ed25519.json");
const RSA_FILE: &str = include_str!("../../net/tests/golden/identity-rsa.json");
const SECP256K1_KEY: &str = "CAISIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";

/// One peer of the original.
struct Original {
    /// Its `service.json`.
    file: &'static str,
    /// Whether the file has the section of the pinning service.
    pinning_service: bool,
    /// Whether its key stands in `service.json`, as in files of old releases.
    old_keys: bool,
    /// Whether its `trusted_peers` are these three, and not everybody.
    closed: bool,
}

/// Its `identity.json`, with the indent and without the end of line of the original.
fn identity_file(number: usize) -> (String, String) {
    let of_file = |text: &str| {
        let file: Value = serde_json::from_str(text).unwrap();
        (file["id"].as_str().unwrap().to_owned(), file["private_key"].as_str().unwrap().to_owned())
    };
    match number {
        0 => of_file(ED25519_FILE),
        1 => of_file(RSA_FILE),
        _ => {
            let identity = Identity::from_private_key(SECP256K1_KEY).unwrap();
            (identity.peer().to_string(), SECP256K1_KEY.to_owned())
        }
    }
}

/// Puts the files of the originals where ours look for them; what two peers of one machine cannot share is changed by the
/// variables that the original has for it.
fn take_over(originals: &[Original; 3]) -> (ProcessCluster, Vec<String>) {
    let mut cluster = ProcessCluster::empty().unwrap();
    let nowhere = format!("/ip4/127.0.0.1/tcp/{}", free_port().unwrap());
    for _ in originals {
        cluster.make_peer(&NodeKind::Kubo(nowhere.clone())).unwrap();
    }
    let ids: Vec<String> = (0..3).map(|number| identity_file(number).0).collect();
    let address = |number: usize| format!("/ip4/127.0.0.1/tcp/{}/p2p/{}\n", cluster.swarm_port(number), ids[number]);
    let peerstore: String = (0..3).map(address).collect();
    for (number, original) in originals.iter().enumerate() {
        let folder = cluster.peers[number].folder.clone();
        let (id, key) = identity_file(number);
        let mut file: Value = serde_json::from_str(original.file).unwrap();
        if !original.pinning_service {
            file["api"].as_object_mut().unwrap().remove("pinsvcapi");
        }
        if original.closed {
            file["consensus"]["crdt"]["trusted_peers"] = json!(ids);
        }
        if original.old_keys {
            file["cluster"]["id"] = json!(id);
            file["cluster"]["private_key"] = json!(key);
            fs::remove_file(folder.join("identity.json")).unwrap();
        } else {
            let identity = format!("{{\n    \"id\": \"{id}\",\n    \"private_key\": \"{key}\"\n}}");
            fs::write(folder.join("identity.json"), identity).unwrap();
        }
        fs::write(folder.join("service.json"), file.to_string()).unwrap();
        fs::write(folder.join("peerstore"), &peerstore).unwrap();
        // The file's own secret, which all three have.
        cluster.forget_variable(number, "CLUSTER_SECRET");
        for name in ["CLUSTER_IPFSPROXY_LISTENMULTIADDRESS", "CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS"] {
            cluster.set_variable(number, name, &format!("/ip4/127.0.0.1/tcp/{}", free_port().unwrap()));
        }
    }
    (cluster, ids)
}

fn state_tool(cluster: &ProcessCluster, peer: usize, words: &[&str]) -> String {
    let mut command = cluster.tool(peer, &[&["state"], words].concat()).unwrap();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

async fn start(originals: [Original; 3]) {
    let (cluster, ids) = take_over(&originals);
    let file = cluster.folder().unwrap().join("exported");
    let pins = u64::try_from(STATE.lines().count()).unwrap();
    for peer in 0..3 {
        fs::write(&file, STATE).unwrap();
        state_tool(&cluster, peer, &["import", "-f", file.to_str().unwrap()]);
        let first = state_tool(&cluster, peer, &["export"]);
        assert_eq!(sorted(&first), sorted(STATE));
        state_tool(&cluster, peer, &["cleanup", "-f"]);
        assert_eq!(state_tool(&cluster, peer, &["export"]), "");
        fs::write(&file, &first).unwrap();
        state_tool(&cluster, peer, &["import", "-f", file.to_str().unwrap()]);
        assert_eq!(sorted(&state_tool(&cluster, peer, &["export"])), sorted(&first));
    }
    for peer in 0..3 {
        cluster.spawn_peer(peer).unwrap();
    }
    for (peer, original) in originals.iter().enumerate() {
        cluster.wait_started(peer).await.unwrap();
        assert_eq!(cluster.peers[peer].id(), ids[peer]);
        let extracted = cluster.log(peer).contains("NOTICE: identity information extracted");
        assert_eq!(extracted, original.old_keys, "{}", cluster.log_tail(peer));
        assert!(cluster.peers[peer].folder.join("identity.json").exists());
    }
    cluster.wait_voters(3).await;
    wait::until("all peers to see each other", START_LIMIT, || async {
        for peer in 0..3 {
            let id: Value = cluster.get(peer, "/id").await.map_err(|error| format!("{error:#}"))?;
            let seen = id["cluster_peers"].as_array().map_or(0, Vec::len);
            if seen != 3 {
                return Err(format!("peer {peer} sees {seen}"));
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(client::pin(&cluster, 1, &inline_cid(1_000), "new").await, Told::Pinned);
    assert_eq!(cluster.wait_equal().await.pins, pins + 1);
    for peer in 0..3 {
        let found = cluster.pins(peer).await.unwrap();
        for line in STATE.lines() {
            let pin: cluster_types::Pin = serde_json::from_str(line).unwrap();
            assert_eq!(found[&pin.cid.to_string()], pin, "peer {peer}");
        }
    }
    for peer in 0..3 {
        assert_eq!(cluster.stop(peer).await.unwrap(), Some(0), "{}", cluster.log_tail(peer));
    }
}

fn original(file: &'static str, pinning_service: bool, old_keys: bool) -> Original {
    Original { file, pinning_service, old_keys, closed: false }
}

fn closed(original: Original) -> Original {
    Original { closed: true, ..original }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_cluster_goes_on() {
    start([original(RAFT, true, false), original(RAFT, false, false), original(RAFT, true, true)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_cluster_of_an_old_release_goes_on() {
    start([original(OLD, false, true), original(OLD, false, true), original(OLD, false, true)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crdt_cluster_goes_on_with_pebble_and_badger3() {
    start([original(PEBBLE, true, false), original(BADGER3, true, true), original(PEBBLE, false, false)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crdt_cluster_goes_on_with_the_older_engines() {
    let originals = [original(BADGER, false, false), original(LEVELDB, true, false), original(BADGER, true, true)];
    start(originals.map(closed)).await;
}
