//! Kill -9 at random moments of whatever writes a file that a peer cannot do without: what is found afterwards is the old
//! file or the new one, whole.
//!
//! `CLUSTER_TORN_KILLS` says how many kills each writer gets (default 40). The seed is printed; `CLUSTER_TORN_SEED`
//! replays the choice of moments. (For the state itself see `state`.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster_net::Identity;
use cluster_tests::process::{NodeKind, ProcessCluster, binary, free_port};
use cluster_types::Multiaddr;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::Instant;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many kills, and what chooses their moments.
fn chances() -> (u64, StdRng) {
    let kills = setting("CLUSTER_TORN_KILLS", 40);
    let seed = setting("CLUSTER_TORN_SEED", rand::random::<u32>().into());
    println!("CLUSTER_TORN_KILLS={kills} CLUSTER_TORN_SEED={seed}");
    (kills, StdRng::seed_from_u64(seed))
}

fn init(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary("ipfs-cluster-service").unwrap());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CLUSTER_") || name.starts_with("IPFS_CLUSTER_") {
            command.env_remove(name.as_ref());
        }
    }
    command.env("IPFS_CLUSTER_PATH", folder).arg("init").args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// How long a writer takes when nobody kills it.
fn length_of(mut command: Command) -> Duration {
    let started = Instant::now();
    assert!(command.status().unwrap().success());
    started.elapsed()
}

/// Kills a process somewhere between its start and a little after its usual end.
async fn kill_somewhere(mut child: Child, length: Duration, chance: &mut StdRng) {
    tokio::time::sleep(length.mul_f64(chance.random_range(0.0..1.2))).await;
    drop(child.kill());
    child.wait().unwrap();
}

/// The three files, each whole or not there.
fn whole_files(folder: &Path) -> [Option<Vec<u8>>; 3] {
    let files = ["service.json", "identity.json", "peerstore"].map(|name| fs::read(folder.join(name)).ok());
    let [service, identity, peerstore] = &files;
    if let Some(service) = service {
        let file: Value = serde_json::from_slice(service).unwrap_or_else(|error| panic!("service.json: {error}"));
        assert!(file["cluster"]["secret"].as_str().is_some_and(|secret| secret.len() == 64), "{file}");
        assert!(file["observations"]["tracing"].is_object(), "the last section is there: {file}");
        assert_eq!(service.last(), Some(&b'\n'));
    }
    if identity.is_some() {
        Identity::load(&folder.join("identity.json")).unwrap();
    }
    for line in peerstore.iter().flat_map(|text| std::str::from_utf8(text).unwrap().lines()) {
        line.parse::<Multiaddr>().unwrap();
    }
    files
}

/// What a kill leaves beside the files must not stay for ever, or be taken for something.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_first_init_leaves_whole_files_or_none() {
    let (kills, mut chance) = chances();
    let place = tempfile::tempdir().unwrap();
    let length = length_of(init(&place.path().join("first"), &[]));
    let mut seen = BTreeMap::new();
    for number in 0..kills {
        let folder = place.path().join(number.to_string());
        kill_somewhere(init(&folder, &[]).spawn().unwrap(), length, &mut chance).await;
        let files = if folder.exists() { whole_files(&folder) } else { [None, None, None] };
        *seen.entry(files.iter().flatten().count()).or_insert(0) += 1;
        // Once more, and everything is there.
        assert!(init(&folder, &["--force"]).status().unwrap().success());
        let again = whole_files(&folder);
        assert!(again.iter().all(Option::is_some), "{:?}", names(&folder));
        assert!(files[1].is_none() || files[1] == again[1], "the identity has changed");
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("kills by how many files there were: {seen:?}");
}

#[tokio::test]
async fn a_configuration_is_the_old_one_or_the_new_one() {
    let (kills, mut chance) = chances();
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    let peers = ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"; 40]
        .map(|peer| format!("/ip4/10.0.0.1/tcp/{}/p2p/{peer}", chance.random_range(1_000..60_000)))
        .join(",");
    let words = ["--force", "--peers", &peers];
    let length = length_of(init(&folder, &words));
    let mut seen = [0, 0];
    for _ in 0..kills {
        let before = whole_files(&folder);
        kill_somewhere(init(&folder, &words).spawn().unwrap(), length, &mut chance).await;
        let after = whole_files(&folder);
        // `whole_files` has looked at each; every run has another secret and the same peers.
        assert!(after.iter().all(Option::is_some), "{:?}", names(&folder));
        assert_eq!((&before[1], &before[2]), (&after[1], &after[2]));
        seen[usize::from(before[0] != after[0])] += 1;
    }
    println!("{} kills left the old configuration, {} the new one", seen[0], seen[1]);
    assert!(init(&folder, &words).status().unwrap().success());
    let left = names(&folder);
    assert!(left.len() <= 4 + 1, "what was cut off is not gathered for ever: {left:?}");
}

/// The same program, which the system kills when it writes beyond so many half kilobytes of a file.
fn limited(command: &Command, blocks: usize) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f \"$0\" && exec \"$@\"", &blocks.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    limited
}

#[test]
fn who_dies_in_the_middle_of_a_file_leaves_the_old_one() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    let peers = ["/ip4/10.0.0.1/tcp/9096/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"; 40].join(",");
    let words = ["--force", "--peers", &peers];
    assert!(init(&folder, &words).status().unwrap().success());
    let mut died = 0;
    for blocks in 0..20 {
        let before = whole_files(&folder);
        let lived = limited(&init(&folder, &words), blocks).status().unwrap().success();
        let after = whole_files(&folder);
        assert!(after.iter().all(Option::is_some), "{:?}", names(&folder));
        assert_eq!((&before[1], &before[2]), (&after[1], &after[2]), "{blocks} blocks");
        died += usize::from(!lived);
        // And where there was nothing.
        let fresh = place.path().join(blocks.to_string());
        limited(&init(&fresh, &words), blocks).status().unwrap();
        if fresh.exists() {
            whole_files(&fresh);
        }
    }
    println!("died at {died} of 20 limits");
    assert!((5..20).contains(&died), "a configuration has some kilobytes, and {died} limits were below");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peerstore_is_the_old_one_or_the_new_one() {
    let (kills, mut chance) = chances();
    // A start and an orderly stop take far longer than a file.
    let kills = kills.div_ceil(5);
    let mut cluster = ProcessCluster::empty().unwrap();
    cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    let other = cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    let path = cluster.peers[other].folder.join("peerstore");
    let first = cluster.peers[0].id().to_owned();
    let started = Instant::now();
    assert_eq!(cluster.stop(other).await.unwrap(), Some(0));
    let length = started.elapsed();
    let mut replaced = 0;
    for round in 0..kills {
        // An address that the other peer no longer has: the true one is learnt, and written.
        let old = format!("/ip4/127.0.0.1/tcp/{}/p2p/{first}\n", free_port().unwrap());
        fs::write(&path, &old).unwrap();
        cluster.start_peer(other).await.unwrap();
        let pid = cluster.pid(other).unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        // The peerstore is written on the way down, if it was not before.
        tokio::time::sleep(length.mul_f64(chance.random_range(0.0..1.2))).await;
        cluster.kill(other).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        if text == old {
            continue;
        }
        replaced += 1;
        assert!(text.ends_with(&format!("/p2p/{first}\n")), "round {round}: {text:?}");
        let lines: Vec<Multiaddr> = text.lines().map(|line| line.parse().unwrap()).collect();
        let learnt = format!("/ip4/127.0.0.1/tcp/{}/p2p/{first}", cluster.swarm_port(0)).parse().unwrap();
        assert!(lines.contains(&learnt), "round {round}: {text:?}");
    }
    println!("{} of {kills} kills within {length:?} left the old file", kills - replaced);
    assert!(replaced > 0, "nobody wrote it");
}
