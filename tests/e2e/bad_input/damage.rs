//! Damaged databases: the peer does not start, says which folder and what to do, and the others go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cluster_core::testing::linear::Told;
use cluster_tests::process::{ProcessCluster, SETTLE_LIMIT, binary};
use cluster_tests::wait;
use cluster_types::{AddedOutput, GlobalPinInfo, Id, TrackerStatus};
use reqwest::multipart::{Form, Part};

use super::EMBEDDED;
use crate::client::{inline_cid, pin};

/// The files of a database whose names begin or end so.
fn files(database: &Path, begin: &str, end: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(begin) && name.ends_with(end)).map(|name| database.join(name)).collect()
}

/// Changes some bytes all over a file.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    for byte in bytes.iter_mut().step_by(97) {
        *byte ^= 0x55;
    }
    fs::write(file, bytes).unwrap();
}

fn cut_in_half(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 6] = [
    ("a list of files that is garbage", |database| {
        files(database, "MANIFEST", "").iter().for_each(|file| fs::write(file, b"this is not a manifest").unwrap());
    }),
    ("a list of files that is gone", |database| {
        files(database, "MANIFEST", "").iter().for_each(|file| fs::remove_file(file).unwrap());
    }),
    ("a CURRENT that is garbage", |database| fs::write(database.join("CURRENT"), b"garbage").unwrap()),
    ("a CURRENT that is empty", |database| fs::write(database.join("CURRENT"), b"").unwrap()),
    ("a CURRENT that is gone", |database| fs::remove_file(database.join("CURRENT")).unwrap()),
    ("tables with flipped bytes", |database| files(database, "", ".sst").iter().for_each(|file| flip(file))),
];

/// Damages a database in every way; each start is refused with these words. Ends with the database as it was.
async fn refuse_every_damage(cluster: &ProcessCluster, peer: usize, database: &Path, words: &[&str]) {
    let kept = database.with_extension("kept");
    copy(database, &kept);
    for (what, damage) in DAMAGES {
        damage(database);
        let said = cluster.refused_start(peer, &[], &[]).await.unwrap();
        let path = database.display().to_string();
        for word in [&[path.as_str(), "is damaged", "out of the way"], words].concat() {
            assert!(said.contains(word), "{what}: {word:?} is missing: {said}");
        }
        fs::remove_dir_all(database).unwrap();
        copy(&kept, database);
    }
    fs::remove_dir_all(&kept).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in files(from, "", "") {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Adds content that every peer holds, and waits until they do.
async fn add_everywhere(cluster: &ProcessCluster, content: &[u8]) -> String {
    let form = Form::new().part("file", Part::bytes(content.to_vec()).file_name("file"));
    let url = cluster.url(0, "/add?replication-min=-1&replication-max=-1");
    let body = cluster.http(0).post(url).multipart(form).send().await.unwrap().text().await.unwrap();
    let added: AddedOutput = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    let cid = added.cid.unwrap().to_string();
    wait::until("three copies", SETTLE_LIMIT, || async {
        let path = format!("/pins/{cid}");
        let info: GlobalPinInfo = cluster.get(0, &path).await.map_err(|error| format!("{error:#}"))?;
        let pinned = info.peer_map.values().filter(|peer| peer.status == TrackerStatus::Pinned).count();
        if pinned == 3 { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
    })
    .await;
    cid
}

/// What a peer's own node gives out for a CID, asked by a node that knows no other.
async fn read_from_node(cluster: &ProcessCluster, peer: usize, cid: &str) -> Vec<u8> {
    let id: Id = cluster.get(peer, "/id").await.unwrap();
    let node = id.ipfs.id;
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{node}", cluster.node_port(peer));
    let command = Command::new(binary("ipfs-cluster-service").unwrap());
    let mut command = tokio::process::Command::from(command);
    command.args(["cat", "--peer", &address, cid]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(5), command.output()).await;
    asked.map(|output| output.unwrap().stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_stops_one_peer_only_and_it_comes_back_equal() {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let cid = add_everywhere(&cluster, &content).await;
    // What was written before a restart is in tables after it.
    assert_eq!(cluster.stop(2).await.unwrap(), Some(0));
    cluster.start_peer(2).await.unwrap();
    assert_eq!(cluster.stop(2).await.unwrap(), Some(0));
    let data = cluster.peers[2].folder.join("state");

    let (list, blocks) = (data.join("state"), data.join("blocks"));
    assert!(!files(&list, "", ".sst").is_empty() && !files(&blocks, "", ".sst").is_empty());
    refuse_every_damage(&cluster, 2, &list, &["--bootstrap", "backup"]).await;
    refuse_every_damage(&cluster, 2, &blocks, &["start the peer again"]).await;
    // Meanwhile the others go on, and nothing of what was tried has hurt.
    assert_eq!(pin(&cluster, 0, &inline_cid(5), "5").await, Told::Pinned);
    cluster.start_peer(2).await.unwrap();
    let pins = cluster.wait_equal().await.pins;
    assert_eq!(pins, 2);

    // As the messages say: out of the way with it, and join once more.
    assert_eq!(cluster.stop(2).await.unwrap(), Some(0));
    files(&list, "MANIFEST", "").iter().for_each(|file| cut_in_half(file));
    fs::rename(&list, data.join("state.damaged")).unwrap();
    fs::remove_dir_all(data.join("snapshots")).unwrap();
    fs::rename(&blocks, data.join("blocks.damaged")).unwrap();
    cluster.rejoin_peer(2).await.unwrap();
    assert_eq!(cluster.wait_equal().await.pins, pins);
    wait::until("the content to be back", SETTLE_LIMIT, || async {
        let read = read_from_node(&cluster, 2, &cid).await;
        if read == content { Ok(()) } else { Err(format!("{} bytes", read.len())) }
    })
    .await;
    cluster.wait_voters(3).await;
}

/// Pins these, and waits until every peer that runs has them.
async fn pin_all(cluster: &ProcessCluster, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(pin(cluster, 0, &inline_cid(number), &number.to_string()).await, Told::Pinned);
    }
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lost_what_it_promised_to_keep_does_not_take_its_leader_along() {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let follower = (cluster.leader().await.unwrap() + 1) % 3;
    let data = cluster.peers[follower].folder.join("state");
    let (list, backup) = (data.join("state"), data.join("backup"));
    pin_all(&cluster, 0..20).await;
    // Restored from a backup, it has less than it acknowledged.
    assert_eq!(cluster.stop(follower).await.unwrap(), Some(0));
    copy(&list, &backup);
    cluster.start_peer(follower).await.unwrap();
    pin_all(&cluster, 20..40).await;
    cluster.kill(follower).unwrap();
    fs::rename(&list, data.join("later")).unwrap();
    fs::rename(&backup, &list).unwrap();
    cluster.start_peer(follower).await.unwrap();
    assert_eq!(cluster.wait_equal().await.pins, 40);
    // A log with one bad byte in its middle is not taken for a shorter one.
    pin_all(&cluster, 40..60).await;
    cluster.kill(follower).unwrap();
    for file in files(&list, "", ".log") {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(file, bytes).unwrap();
    }
    let said = cluster.refused_start(follower, &[], &[]).await.unwrap();
    let path = list.display().to_string();
    for word in [path.as_str(), "is damaged", "--bootstrap"] {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
    fs::rename(&list, data.join("damaged")).unwrap();
    fs::remove_dir_all(data.join("snapshots")).unwrap();
    cluster.rejoin_peer(follower).await.unwrap();
    assert_eq!(cluster.wait_equal().await.pins, 60);
    for peer in 0..3 {
        cluster.check_alive(peer).unwrap();
    }
}
