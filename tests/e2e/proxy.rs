//! The IPFS proxy in front of a real Kubo, asked by the real `ipfs` command line.

use cluster_tests::ipfs_script::{SCRIPT, Shell, Step};
use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;

/// Returns when every pin is pinned.
async fn settle(cluster: &ProcessCluster) {
    wait::until("every pin to be on its node", SETTLE_LIMIT, || async {
        let url = cluster.url(0, "/pins?filter=queued,pinning,unpinning,error");
        let answer = cluster.http(0).get(url).send().await.unwrap().text().await.unwrap();
        if answer.is_empty() { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// What the embedded node says behind the proxy in its own way, besides what the proxy does; the table of
/// `docs/compatibility.md` says why.
const EMBEDDED: &[(&str, &str)] = &[
    (
        "ipfs files mkdir /folder && ipfs files cp /ipfs/$(cat big.cid) /folder/big && ipfs files ls -l /folder",
        "Command not found",
    ),
    ("ipfs files stat --hash /folder", "Command not found"),
    ("echo written | ipfs files write --create /folder/note && ipfs files read /folder/note", "Command not found"),
    ("ipfs files rm -r /folder && ipfs files ls /", "Command not found"),
    ("ipfs id --format='<aver>'", "ipfs-cluster/"),
    // What was just put is not garbage yet.
    ("ipfs repo gc -q | sort | grep -c . >/dev/null && echo collected", ""),
];

/// Runs the script on a Kubo alone and on the proxy of the first peer, and compares what is said. The node behind it may say
/// some things in its own way.
async fn compare(alone: &KuboDaemon, cluster: &ProcessCluster, own: &[(&str, &str)]) {
    let rpcs = [alone.rpc().to_owned(), cluster.proxy_address(0)];
    let [plain, proxied] = rpcs.map(|rpc| Shell::new(alone.binary(), &rpc).unwrap());
    let (mut commands, mut wrong) = (0, Vec::new());
    for step in SCRIPT {
        let line = match step {
            Step::Same(line) | Step::Differs(line, _) => line,
            Step::Settle => {
                settle(cluster).await;
                continue;
            }
        };
        commands += 1;
        let (of_kubo, of_proxy) = (plain.run(line).unwrap(), proxied.run(line).unwrap());
        let in_own_way = own.iter().find(|(known, _)| known == line);
        let is_right = match (in_own_way, step) {
            (Some((_, text)), _) => of_proxy.said.contains(text) && of_kubo != of_proxy,
            (None, Step::Same(_)) => of_kubo == of_proxy,
            // A difference that is gone belongs out of the list.
            (None, Step::Differs(_, text)) => of_proxy.said.contains(text) && of_kubo != of_proxy,
            (None, Step::Settle) => true,
        };
        if !is_right {
            wrong.push(format!("$ {line}\n--- Kubo: {of_kubo:?}\n--- proxy: {of_proxy:?}"));
        }
    }
    assert!(commands > 60, "{commands} commands are too few");
    assert!(wrong.is_empty(), "{} of {commands}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ipfs_command_line_finds_the_same_behind_the_proxy_as_behind_kubo() {
    let (Some(alone), Some(behind)) = (KuboDaemon::start().await, KuboDaemon::start().await) else { return };
    let cluster = ProcessCluster::start(&[NodeKind::Kubo(behind.rpc().to_owned())]).await.unwrap();
    compare(&alone, &cluster, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ipfs_command_line_finds_the_same_behind_the_proxy_of_a_peer_without_kubo() {
    let Some(alone) = KuboDaemon::start().await else { return };
    let cluster = ProcessCluster::start(&[NodeKind::Embedded]).await.unwrap();
    compare(&alone, &cluster, EMBEDDED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_by_ipfs_is_pinned_by_all_peers() {
    let mut kubos = Vec::new();
    for _ in 0..2 {
        let Some(kubo) = KuboDaemon::start().await else { return };
        kubos.push(kubo);
    }
    let nodes: Vec<NodeKind> = kubos.iter().map(|kubo| NodeKind::Kubo(kubo.rpc().to_owned())).collect();
    let cluster = ProcessCluster::start(&nodes).await.unwrap();
    let shell = Shell::new(kubos[0].binary(), &cluster.proxy_address(0)).unwrap();
    let added = shell.run("ipfs add -Q -r tree").unwrap();
    let cid = added.said.trim();
    for kubo in &kubos {
        let direct = Shell::new(kubo.binary(), kubo.rpc()).unwrap();
        wait::until("the pin on every Kubo", SETTLE_LIMIT, || async {
            let listed = direct.run(&format!("ipfs pin ls --type=recursive {cid}")).unwrap();
            if listed.code == Some(0) { Ok(()) } else { Err(listed) }
        })
        .await;
    }
    let log = cluster.log(0);
    assert!(log.contains("POST /api/v0/add?"), "the access log has no line of it: {log}");
}
