//! The embedded node's RPC asked by the real `ipfs` command line, beside a real Kubo asked the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::sync::Arc;
use std::time::Duration;

use cluster_core::task::TaskGroup;
use cluster_ipfs::embedded::rpc::{self, RpcConfig};
use cluster_ipfs::embedded::{EmbeddedConfig, EmbeddedNode};

#[path = "../../../tests/src/ipfs_script.rs"]
#[expect(unreachable_pub, reason = "shared with the system tests")]
mod ipfs_script;
#[path = "../../../tests/src/kubo.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with other test binaries, which need more of it")]
mod kubo_daemon;
#[path = "../src/embedded/tests/mem.rs"]
#[expect(dead_code, reason = "shared with the unit tests, which need more of it")]
mod mem;

use ipfs_script::{SCRIPT, Shell, Step};
use kubo_daemon::KuboDaemon;
use mem::MemBlocks;

const PATIENCE: Duration = Duration::from_secs(120);

/// What the embedded node answers in its own way; the table of `docs/compatibility.md` says why.
const DIFFERENT: &[(&str, &str)] = &[
    ("ipfs add --chunker=size-x a.txt", "is not known"),
    ("ipfs pin ls --names --type=recursive | grep named", ""),
    ("ipfs pin ls --name=nam -q", ""),
    ("ipfs pin ls --name=other", ""),
    (
        "ipfs files mkdir /folder && ipfs files cp /ipfs/$(cat big.cid) /folder/big && ipfs files ls -l /folder",
        "Command not found",
    ),
    ("ipfs files stat --hash /folder", "Command not found"),
    ("echo written | ipfs files write --create /folder/note && ipfs files read /folder/note", "Command not found"),
    ("ipfs files rm -r /folder && ipfs files ls /", "Command not found"),
    ("ipfs id --format='<aver>'", "ipfs-cluster/"),
    ("ipfs repo stat", "NumObjects:"),
];

/// A node and its RPC on loopback.
struct Served {
    tasks: TaskGroup,
    port: u16,
    folder: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = TaskGroup::new();
        let config = EmbeddedConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            stall_timeout: Duration::from_secs(2),
            import_grace: Duration::ZERO,
            ..EmbeddedConfig::new(folder.path().join("key"))
        };
        let node = EmbeddedNode::start(config, Arc::new(MemBlocks::default()), &tasks).await.unwrap();
        let config = RpcConfig {
            socket: folder.path().join("ipfs-api.sock"),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            repository: folder.path().to_owned(),
        };
        let port = rpc::serve(node, config, &tasks).await.unwrap()[0].port();
        Self { tasks, port, folder }
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, Vec::<&str>::new());
        drop(self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ipfs_command_line_finds_the_same_in_the_embedded_node_as_in_kubo() {
    let Some(kubo) = KuboDaemon::start().await else { return };
    let served = Served::start().await;
    let plain = Shell::new(kubo.binary(), kubo.rpc()).unwrap();
    let ours = Shell::new(kubo.binary(), &format!("/ip4/127.0.0.1/tcp/{}", served.port)).unwrap();
    let (mut commands, mut wrong) = (0, Vec::new());
    for step in SCRIPT {
        let (Step::Same(line) | Step::Differs(line, _)) = step else { continue };
        commands += 1;
        let (of_kubo, of_us) = (plain.run(line).unwrap(), ours.run(line).unwrap());
        let is_right = match DIFFERENT.iter().find(|(different, _)| different == line) {
            None => of_kubo == of_us,
            // A difference that is gone belongs out of the list.
            Some((_, text)) => of_us.said.contains(text) && of_kubo != of_us,
        };
        if !is_right {
            wrong.push(format!("$ {line}\n--- Kubo: {of_kubo:?}\n--- embedded: {of_us:?}"));
        }
    }
    served.stop().await;
    assert!(commands > 60, "{commands} commands are too few");
    assert!(wrong.is_empty(), "{} of {commands}:\n{}", wrong.len(), wrong.join("\n"));
}
