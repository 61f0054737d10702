//! A peer that cannot start says why and what to do, and leaves everything as it was.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster};
use serde_json::{Value, json};

use crate::client::{inline_cid, pin};

/// Starts, expects a refusal that holds all of these words.
async fn refused(cluster: &ProcessCluster, case: &str, flags: &[&str], variables: &[(&str, &str)], words: &[&str]) {
    let said = cluster.refused_start(0, flags, variables).await.unwrap();
    for word in words {
        assert!(said.contains(word), "{case}: {word:?} is missing: {said}");
    }
    assert!(!said.contains("panicked"), "{case}: {said}");
}

/// Starts with other content in a file, expects a refusal that names it, and puts the old content back.
async fn refused_with(cluster: &ProcessCluster, case: &str, file: &Path, content: &[u8], words: &[&str]) {
    let old = fs::read(file).unwrap();
    fs::write(file, content).unwrap();
    let path = file.display().to_string();
    refused(cluster, case, &[], &[], &[&[path.as_str()], words].concat()).await;
    assert_eq!(fs::read(file).unwrap(), content, "{case}: a file that cannot be used is not touched");
    fs::write(file, old).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cannot_start_says_what_to_do_and_keeps_what_it_has() {
    let mut cluster = ProcessCluster::empty().unwrap();
    cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    assert_eq!(pin(&cluster, 0, &inline_cid(1), "1").await, Told::Pinned);
    second_daemon(&cluster).await;
    let before = cluster.state(0).await.unwrap();
    assert_eq!(before.pins, 1);
    assert_eq!(cluster.stop(0).await.unwrap(), Some(0));
    wrong_flags_and_variables(&cluster).await;
    taken_ports(&cluster).await;
    wrong_identity(&cluster).await;
    cluster.forget_variable(0, "CLUSTER_SECRET");
    wrong_configuration(&cluster).await;
    cluster.start_peer(0).await.unwrap();
    let after = cluster.state(0).await.unwrap();
    assert_eq!((after.digest, after.pins), (before.digest, before.pins));
}

async fn second_daemon(cluster: &ProcessCluster) {
    let words = ["error obtaining execution lock", "cluster.lock", "stop it first", "--config"];
    refused(cluster, "a second daemon", &[], &[], &words).await;
    cluster.check_alive(0).unwrap();
    assert_eq!(pin(cluster, 0, &inline_cid(1), "1").await, Told::Pinned, "the first goes on");
}

async fn wrong_flags_and_variables(cluster: &ProcessCluster) {
    let flags: [(&[&str], &[&str]); 3] = [
        (&["--bootstrap", "junk"], &["--bootstrap", "junk"]),
        (&["--bootstrap"], &["--bootstrap"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
    ];
    for (flags, words) in flags {
        refused(cluster, "a flag", flags, &[], words).await;
    }
    let variables = [
        ("CLUSTER_REPLICATIONFACTORMIN", "abc", "write a whole number"),
        ("CLUSTER_REPLICATIONFACTORMIN", "5", "replication_factor_min"),
        ("CLUSTER_FOLLOWERMODE", "perhaps", "write true or false"),
        ("CLUSTER_DIALPEERTIMEOUT", "soon", "a duration"),
        ("CLUSTER_LISTENMULTIADDRESS", "127.0.0.1:9096", "multiaddress"),
        ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "junk", "multiaddress"),
        ("CLUSTER_SECRET", "abcd", "input secret is 2 bytes, cluster secret should be 32"),
        ("CLUSTER_SECRET", "xyz", "hex digits"),
        ("CLUSTER_ID", "junk", "cluster.id"),
    ];
    for (name, value, text) in variables {
        refused(cluster, name, &[], &[(name, value)], &["loading the configuration", name, text]).await;
    }
    let words = ["is that of a member", "cluster.follower_mode", "move the other away"];
    refused(cluster, "a member's state", &[], &[("CLUSTER_FOLLOWERMODE", "true")], &words).await;
}

async fn taken_ports(cluster: &ProcessCluster) {
    for port in [cluster.api_port(0), cluster.swarm_port(0), cluster.node_port(0)] {
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        refused(cluster, "a taken port", &[], &[], &["cannot listen on", &address, "is another program"]).await;
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cannot_serve_joins_nobody_and_one_that_knows_others_founds_nothing() {
    let mut cluster = ProcessCluster::empty().unwrap();
    cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    let joining = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let member = cluster.member_address(joining).unwrap();
    let stays = || async {
        let answer = cluster.http(0).get(cluster.url(0, "/peers")).send().await.unwrap().text().await.unwrap();
        assert_eq!(answer.lines().count(), 1, "{answer}");
    };
    // Alone it would found a cluster of its own, and what is written to it would be lost for the other one.
    let said = cluster.refused_start(joining, &[], &[("CLUSTER_PEERADDRESSES", &member)]).await.unwrap();
    assert!(said.contains("cluster.peer_addresses") && said.contains("--bootstrap <swarm address"), "{said}");
    let peerstore = cluster.peers[joining].folder.join("peerstore");
    fs::write(&peerstore, format!("{member}\n")).unwrap();
    let said = cluster.refused_start(joining, &[], &[]).await.unwrap();
    assert!(said.contains(&peerstore.display().to_string()), "{said}");

    let taken = TcpListener::bind(("127.0.0.1", cluster.api_port(joining))).unwrap();
    let said = cluster.refused_start(joining, &["--bootstrap", &member], &[]).await.unwrap();
    assert!(said.contains("cannot listen on"), "{said}");
    drop(taken);
    stays().await;
    let variables = [("CLUSTER_RESTAPI_HEADERS", "bad name:x")];
    let said = cluster.refused_start(joining, &["--bootstrap", &member], &variables).await.unwrap();
    assert!(said.contains("api.restapi.headers") && said.contains("is not the name of a header"), "{said}");
    stays().await;
    cluster.start_peer(joining).await.unwrap();
    assert_eq!(pin(&cluster, joining, &inline_cid(1), "1").await, Told::Pinned);
    cluster.wait_equal().await;
    assert!(cluster.pins(0).await.unwrap().contains_key(&inline_cid(1).to_string()), "it is one cluster");
}

async fn wrong_identity(cluster: &ProcessCluster) {
    let file = cluster.peers[0].folder.join("identity.json");
    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let text = good.to_string();
    let key = good["private_key"].as_str().unwrap();
    let other = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let with = |field: &str, value: &str| {
        let mut wrong = good.clone();
        wrong[field] = json!(value);
        wrong.to_string().into_bytes()
    };
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("nothing", Vec::new(), "is damaged"),
        ("garbage", vec![0xff; 300], "is damaged"),
        ("cut", text.as_bytes()[..text.len() / 2].to_vec(), "is damaged"),
        ("another id", with("id", other), "does not belong to"),
        ("no id", with("id", "junk"), "is not a peer id"),
        ("a cut key", with("private_key", &key[..key.len() / 2]), "private_key"),
        ("no key", with("private_key", "!"), "is not base64"),
        ("far too large", vec![b' '; 100_000], "far too large"),
    ];
    for (case, content, text) in cases {
        let words = [text, "restore it from a backup", "ipfs-cluster-service init"];
        refused_with(cluster, case, &file, &content, &words).await;
    }
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    refused(cluster, "no identity", &[], &[], &["identity.json", "ipfs-cluster-service init"]).await;
    assert!(!file.exists(), "a new identity would be another peer");
    fs::rename(&away, &file).unwrap();
    let node_key = cluster.peers[0].folder.join("embedded_node.key");
    refused_with(cluster, "a broken key of the node", &node_key, b"broken", &["the IPFS node's key", "move it away"])
        .await;
}

async fn wrong_configuration(cluster: &ProcessCluster) {
    let file = cluster.peers[0].folder.join("service.json");
    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let text = good.to_string();
    let with = |section: &str, key: &str, value: Value| {
        let mut wrong = good.clone();
        wrong[section][key] = value;
        wrong.to_string().into_bytes()
    };
    let cases: [(&str, Vec<u8>, &[&str]); 13] = [
        ("nothing", Vec::new(), &["is not valid JSON", "`init`"]),
        ("garbage", vec![0xff; 300], &["is not valid JSON", "`init`"]),
        ("cut", text.as_bytes()[..text.len() / 2].to_vec(), &["is not valid JSON", "`init`", "line 1"]),
        ("a list", b"[]".to_vec(), &["is not valid JSON", "`init`"]),
        ("far too large", vec![b' '; 5 << 20], &["more than the 4194304"]),
        ("a section that is none", br#"{"cluster":5}"#.to_vec(), &["cluster", "must be a JSON object"]),
        ("a number for a text", with("cluster", "peerstore_file", json!(5)), &["cluster.peerstore_file = 5"]),
        (
            "a text for a number",
            with("cluster", "replication_factor_min", json!("many")),
            &["cluster.replication_factor_min = \"many\"", "whole number"],
        ),
        (
            "a number for a time",
            with("cluster", "state_sync_interval", json!(5)),
            &["cluster.state_sync_interval = 5", "a duration"],
        ),
        (
            "a wrong address",
            with("cluster", "announce_multiaddress", json!("here")),
            &["cluster.announce_multiaddress = \"here\"", "multiaddress"],
        ),
        (
            "a short secret",
            with("cluster", "secret", json!("abcdef")),
            &["cluster.secret = XXX_hidden_XXX", "input secret is 3 bytes, cluster secret should be 32"],
        ),
        (
            "a secret of letters",
            with("cluster", "secret", json!("secret")),
            &["cluster.secret = XXX_hidden_XXX", "hex digits"],
        ),
        ("no consensus", with("consensus", "raft", Value::Null), &["consensus.raft"]),
    ];
    for (case, content, words) in cases {
        refused_with(cluster, case, &file, &content, words).await;
    }
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    refused(cluster, "no configuration", &[], &[], &["service.json", "run `ipfs-cluster-service init` first"]).await;
    fs::rename(&away, &file).unwrap();
    let nowhere = cluster.peers[0].folder.join("nowhere");
    let path = nowhere.display().to_string();
    let words = [path.as_str(), "run `ipfs-cluster-service init` first"];
    refused(cluster, "no folder", &[], &[("IPFS_CLUSTER_PATH", &path)], &words).await;
    assert!(!nowhere.exists());
}
