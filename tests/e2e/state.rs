//! The state tools with real peers: export, import, cleanup, and what is left of a state when they are killed.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use cluster_core::testing::linear::Told;
use cluster_tests::content::inline_cid;
use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT};
use cluster_tests::wait;
use cluster_types::{Pin, PinDepth, PinOptions, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client;

/// What a run of the program came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program in a peer's folder with `input` as its standard input.
fn run(cluster: &ProcessCluster, peer: usize, arguments: &[&str], input: &str) -> Ran {
    let mut command = cluster.tool(peer, arguments).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who refuses early closes its end; that is for its exit code to tell.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { code: output.status.code(), stdout, stderr }
}

/// The lines of an export, sorted.
fn exported(cluster: &ProcessCluster, peer: usize) -> Vec<String> {
    let ran = run(cluster, peer, &["state", "export"], "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    sorted(&ran.stdout)
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn assert_done(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

/// A peer in `crdt` mode that does not run.
fn crdt_peer(cluster: &mut ProcessCluster) -> usize {
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let again = ["init", "--ipfs", "embedded", "--force", "--consensus", "crdt"];
    assert_done(&run(cluster, peer, &again, ""));
    peer
}

/// An export of `count` pins, numbered from `first`, byte by byte as the original writes it.
fn lines(first: u64, count: u64, name: &str) -> String {
    let line = |number| {
        let options = PinOptions {
            replication_factor_min: -1,
            replication_factor_max: -1,
            name: name.to_owned(),
            ..PinOptions::default()
        };
        let mut pin = Pin::new(inline_cid(number), options);
        pin.timestamp = Timestamp::from_unix_seconds(1_700_000_000);
        let line = serde_json::to_string(&pin).unwrap() + "\n";
        // As the original exports what is empty; the REST API writes it otherwise.
        line.replace(r#""metadata":{}"#, r#""metadata":null"#).replace(r#""origins":null"#, r#""origins":[]"#)
    };
    (first..first + count).map(line).collect()
}

fn write(cluster: &ProcessCluster, name: &str, content: &str) -> PathBuf {
    let path = cluster.folder().unwrap().join(name);
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_comes_back_after_a_cleanup_and_an_import() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = crdt_peer(&mut cluster);
    cluster.start_peer(peer).await.unwrap();
    for number in 0..20 {
        let told = client::pin(&cluster, peer, &inline_cid(number), &number.to_string()).await;
        assert_eq!(told, Told::Pinned);
    }
    let online = run(&cluster, peer, &["state", "export"], "");
    assert_done(&online);
    assert!(online.stderr.contains("the peer is running: exporting through its REST API at /ip4/127.0.0.1/tcp/"));
    let refused = run(&cluster, peer, &["state", "import", "--force"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("error obtaining execution lock: "), "{}", refused.stderr);
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));

    let file = cluster.folder().unwrap().join("export");
    let offline = run(&cluster, peer, &["state", "export", "--file", file.to_str().unwrap()], "");
    assert_done(&offline);
    assert_eq!((offline.stdout.as_str(), offline.stderr.contains("running")), ("", false));
    let before = sorted(&fs::read_to_string(&file).unwrap());
    assert_eq!(before.len(), 20);
    assert_eq!(sorted(&online.stdout), before);

    let spared = run(&cluster, peer, &["state", "cleanup"], "n\n");
    assert_done(&spared);
    assert_eq!(spared.stdout, "The peer state will be removed.  Existing pins may be lost. Continue? [y/n]:");
    assert_eq!(exported(&cluster, peer), before);
    assert_done(&run(&cluster, peer, &["state", "cleanup"], "y\n"));
    assert!(exported(&cluster, peer).is_empty());
    assert_done(&run(&cluster, peer, &["state", "cleanup", "-f"], ""));
    let kept = cluster.peers[peer].folder.join("state");
    assert!(kept.join("old.0/state").is_dir() && !kept.join("old.1").exists());

    assert_done(&run(&cluster, peer, &["state", "import", "-f", file.to_str().unwrap()], ""));
    assert_eq!(exported(&cluster, peer), before);
    for tool in [["state", "crdt", "info"], ["state", "crdt", "dot"]] {
        let ran = run(&cluster, peer, &tool, "");
        assert_done(&ran);
        assert!(ran.stdout.contains("Pins: 20") || ran.stdout.starts_with("digraph CRDTDAG {"), "{}", ran.stdout);
    }
    let marked = run(&cluster, peer, &["state", "crdt", "mark-dirty"], "");
    assert_eq!((marked.code, marked.stdout.as_str()), (Some(0), "Datastore marked 'dirty'\n"), "{}", marked.stderr);
    assert!(run(&cluster, peer, &["state", "crdt", "info"], "").stdout.ends_with("Dirty: true\n"));
    cluster.start_peer(peer).await.unwrap();
    assert!(cluster.log(peer).contains("every record is as it should be"), "{}", cluster.log(peer));
    assert_eq!(client::pin(&cluster, peer, &inline_cid(99), "99").await, Told::Pinned);
    assert_eq!(cluster.pins(peer).await.unwrap().len(), 21);
    // Whoever joins gets what was imported, too.
    let joiner = cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    assert_eq!(cluster.wait_equal().await.pins, 21);
    assert_eq!(client::pin(&cluster, joiner, &inline_cid(100), "100").await, Told::Pinned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_original_are_imported() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = crdt_peer(&mut cluster);
    let other = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let [full, bare, direct] = [
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".to_owned(),
        inline_cid(1).to_string(),
        inline_cid(2).to_string(),
    ];
    let line = format!(
        r#"{{"replication_factor_min":-1,"replication_factor_max":-1,"name":"","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"{full}","type":"pin","allocations":["{other}"],"max_depth":-1,"reference":null,"timestamp":"2026-05-11T08:00:00Z"}}"#
    );
    // Without type and depth; pretty-printed; two in a line.
    let text = format!("{line}{{\"cid\":\"{bare}\"}}\n\n{{\n  \"cid\": \"{direct}\",\n  \"max_depth\": 0\n}}\n");
    let refused = run(&cluster, peer, &["state", "import"], "no\nmaybe\nwhat\n");
    assert_done(&refused);
    assert_eq!(refused.stdout, "The pinset (state) of this peer will be replaced. Continue? [y/n]:".repeat(3));
    let imported = run(&cluster, peer, &["state", "import"], &format!("y\n{text}"));
    assert_done(&imported);
    assert_eq!(
        imported.stdout,
        "The pinset (state) of this peer will be replaced. Continue? [y/n]:reading from stdin, Ctrl-D to finish\n"
    );
    let pins = |lines: Vec<String>| -> Vec<Pin> {
        let mut pins: Vec<Pin> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        pins.sort_by_key(|pin| pin.cid.to_string() != full);
        pins
    };
    let found = pins(exported(&cluster, peer));
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], serde_json::from_str(&line).unwrap());
    for pin in &found {
        let expected = if pin.cid.to_string() == direct { PinDepth::DIRECT } else { PinDepth::RECURSIVE };
        assert_eq!((pin.max_depth, pin.kind.as_str()), (expected, "pin"));
    }
    // Later flags replace what the file says.
    let flags = ["state", "import", "-f", "-rmin", "1", "-rmax=2", "--allocations", other];
    assert_done(&run(&cluster, peer, &flags, &text));
    for pin in pins(exported(&cluster, peer)) {
        assert_eq!((pin.options.replication_factor_min, pin.options.replication_factor_max), (1, 2));
        assert_eq!(pin.allocations, [other.parse().unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_or_a_kill_leaves_the_old_state_or_the_new() {
    let seed: u64 = rand::random::<u32>().into();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = crdt_peer(&mut cluster);
    let [old, new] = [lines(0, 50, "old"), lines(0, 4_000, "new")];
    let [old_file, new_file] = [write(&cluster, "old", &old), write(&cluster, "new", &new)];
    let import_old = ["state", "import", "-f", old_file.to_str().unwrap()];
    let started = tokio::time::Instant::now();
    assert_done(&run(&cluster, peer, &["state", "import", "-f", new_file.to_str().unwrap()], ""));
    let length = started.elapsed();
    assert_eq!(exported(&cluster, peer), sorted(&new));
    assert_done(&run(&cluster, peer, &import_old, ""));

    let broken = write(&cluster, "broken", &format!("{new}{{\"cid\":\n\n7}}\n{new}"));
    let ran = run(&cluster, peer, &["state", "import", "-f", broken.to_str().unwrap()], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("error importing the state: line 4001: "), "{}", ran.stderr);
    assert_eq!(exported(&cluster, peer), sorted(&old));
    let missing = run(&cluster, peer, &["state", "import", "-f", "/nowhere"], "");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("error reading import file: "), "{}", missing.stderr);

    let mut seen = [0, 0];
    for _ in 0..12 {
        let mut command = cluster.tool(peer, &["state", "import", "-f", new_file.to_str().unwrap()]).unwrap();
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        // Where in its work it is hit is what this is about: from its start to a little after its usual end.
        tokio::time::sleep(length.mul_f64(chance.random_range(0.0..1.2))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let found = exported(&cluster, peer);
        let is_new = found == sorted(&new);
        assert!(is_new || found == sorted(&old), "{} pins are neither the old nor the new state", found.len());
        seen[usize::from(is_new)] += 1;
        assert_done(&run(&cluster, peer, &import_old, ""));
    }
    println!("killed {} times before and {} times after the new state was in place", seen[0], seen[1]);
    cluster.start_peer(peer).await.unwrap();
    assert_eq!(cluster.pins(peer).await.unwrap().len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_peers_that_import_the_same_file_are_one_cluster() {
    let mut cluster = ProcessCluster::empty().unwrap();
    for _ in 0..3 {
        cluster.make_peer(&NodeKind::Embedded).unwrap();
    }
    let address = |peer: usize| {
        let identity = fs::read_to_string(cluster.peers[peer].folder.join("identity.json")).unwrap();
        let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}\n", cluster.swarm_port(peer), identity["id"].as_str().unwrap())
    };
    let peerstore: String = (0..3).map(address).collect();
    let file = write(&cluster, "pins", &lines(0, 100, "x"));
    for peer in 0..3 {
        fs::write(cluster.peers[peer].folder.join("peerstore"), &peerstore).unwrap();
        assert_done(&run(&cluster, peer, &["state", "import", "-f", file.to_str().unwrap()], ""));
    }
    for peer in 0..3 {
        cluster.spawn_peer(peer).unwrap();
    }
    wait::until("a leader", START_LIMIT, || async {
        for peer in 0..3 {
            cluster.check_alive(peer).unwrap();
        }
        cluster.leader().await.ok_or("nobody leads")
    })
    .await;
    wait::until("all to be there", START_LIMIT, || async {
        for peer in 0..3 {
            let state = cluster.state(peer).await.map_err(|error| error.to_string())?;
            state.leader.ok_or("nobody leads")?;
        }
        Ok::<_, String>(())
    })
    .await;
    assert_eq!(client::pin(&cluster, 1, &inline_cid(1_000), "1").await, Told::Pinned);
    assert_eq!(cluster.wait_equal().await.pins, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_peer_is_asked_over_its_socket_with_its_password() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = crdt_peer(&mut cluster);
    let socket = cluster.peers[peer].folder.join("api-socket");
    cluster.set_variable(peer, "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", &format!("/unix{}", socket.display()));
    cluster.set_variable(peer, "CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:swordfish");
    let pins = lines(0, 30, "x");
    let file = write(&cluster, "pins", &pins);
    assert_done(&run(&cluster, peer, &["state", "import", "-f", file.to_str().unwrap()], ""));
    cluster.spawn_peer(peer).unwrap();
    // Before that the tool could take the lock that the peer wants.
    wait::until("the socket", START_LIMIT, || async { if socket.exists() { Ok(()) } else { Err("it is not there") } })
        .await;
    let online = wait::until("the peer to answer", START_LIMIT, || async {
        cluster.check_alive(peer).unwrap();
        let ran = run(&cluster, peer, &["state", "export"], "");
        if ran.code == Some(0) && ran.stderr.contains("/unix/") { Ok(ran) } else { Err(ran) }
    })
    .await;
    assert_eq!(sorted(&online.stdout), sorted(&pins));
    assert!(!online.stderr.contains("swordfish"), "{}", online.stderr);
    // Without an answer nothing takes the place of an older export.
    let target = write(&cluster, "export", "older");
    cluster.set_variable(peer, "CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:other");
    let refused = run(&cluster, peer, &["state", "export", "-f", target.to_str().unwrap()], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("error exporting the state: "), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&target).unwrap(), "older");
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
}
