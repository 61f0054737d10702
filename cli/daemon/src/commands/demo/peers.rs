//! The peers of the demo: processes of this executable, each with a folder of its own.
//!
//! Peers listen on the loopback interface only, and find each other through `--bootstrap` alone, so that neither the
//! network nor another cluster on the machine has a part in the demo. Their logs go into files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_peer::config::{
    ClusterSecret, ConfigFolder, NewConfig, NodeKind, ensure_identity, load_identity, random_free_port,
};
use cluster_types::{Multiaddr, PeerId};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::api;

/// What a peer logs when it is ready.
const READY: &str = "IPFS Cluster is READY";
/// A peer that is not ready by then has a problem, also on a small and busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a peer may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often something is looked at that one waits for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Settings that make a lost peer noticed and repaired within seconds, where a real cluster takes a minute.
const IMPATIENT: [(&str, &str); 8] = [
    ("CLUSTER_MDNSINTERVAL", "0s"),
    ("CLUSTER_MONITORPINGINTERVAL", "2s"),
    ("CLUSTER_PUBSUB_HEARTBEATINTERVAL", "1s"),
    ("CLUSTER_PUBSUBMON_CHECKINTERVAL", "2s"),
    ("CLUSTER_DISK_METRICTTL", "10s"),
    ("CLUSTER_REPINNINGGRACEPERIOD", "5s"),
    ("CLUSTER_CRDT_CLUSTERNAME", "demo"),
    ("CLUSTER_STATELESS_CONCURRENTPINS", "8"),
];

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name for people.
    pub(super) name: String,
    /// Its id.
    pub(super) id: PeerId,
    /// Its REST API.
    pub(super) rest: SocketAddr,
    /// Where its log is.
    pub(super) log: PathBuf,
    folder: ConfigFolder,
    swarm_port: u16,
    child: Option<Child>,
}

/// All peers.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The peers, in the order of their names.
    pub(super) peers: Vec<Peer>,
    executable: PathBuf,
}

impl Cluster {
    /// Writes the folders of all peers; nothing runs yet.
    pub(super) fn new(folder: &Path, count: u16) -> anyhow::Result<Self> {
        let secret = ClusterSecret::generate();
        let peers = (1..=count).map(|number| Peer::new(folder, number, &secret)).collect::<anyhow::Result<_>>()?;
        Ok(Self { peers, executable: std::env::current_exe().context("finding this executable")? })
    }

    /// The command line tool beside this executable.
    pub(super) fn ctl(&self) -> anyhow::Result<PathBuf> {
        let path = self.executable.with_file_name("ipfs-cluster-ctl");
        if !path.exists() {
            bail!("{} does not exist: build it too (`make demo` does)", path.display());
        }
        Ok(path)
    }

    /// This executable.
    pub(super) fn executable(&self) -> &Path {
        &self.executable
    }

    /// Starts a peer and waits until it is ready. The first one founds the cluster, the others join it.
    pub(super) async fn start(&mut self, place: usize) -> anyhow::Result<()> {
        let bootstrap = (place > 0).then(|| self.peers[0].swarm_address());
        self.peers[place].start(&self.executable, bootstrap.as_ref()).await
    }

    /// Starts a peer again, as an operator would after a crash: without any flag.
    pub(super) async fn start_again(&mut self, place: usize) -> anyhow::Result<()> {
        self.peers[place].start(&self.executable, None).await
    }

    /// The place of a peer.
    pub(super) fn place_of(&self, id: PeerId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id)
    }

    /// The name of a peer for people.
    pub(super) fn name_of(&self, id: PeerId) -> String {
        self.place_of(id).map_or_else(|| id.to_string(), |place| self.peers[place].name.clone())
    }

    /// Asks all peers to stop, and ends those that do not.
    pub(super) async fn stop(&mut self) {
        for peer in &self.peers {
            peer.ask_to_stop().await;
        }
        for peer in &mut self.peers {
            if let Some(mut child) = peer.child.take()
                && tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err()
            {
                eprintln!("{} would not stop and was killed", peer.name);
                drop(child.kill().await);
            }
        }
    }
}

impl Peer {
    fn new(parent: &Path, number: u16, secret: &ClusterSecret) -> anyhow::Result<Self> {
        let name = format!("peer-{number}");
        let folder = ConfigFolder::new(parent.join(&name));
        let (swarm_port, rest_port, node_port) = (random_free_port()?, random_free_port()?, random_free_port()?);
        let mut wishes: BTreeMap<String, String> =
            IMPATIENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (variable, value) in [
            ("CLUSTER_PEERNAME", name.clone()),
            ("CLUSTER_LISTENMULTIADDRESS", format!("/ip4/127.0.0.1/tcp/{swarm_port}")),
            ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", format!("/ip4/127.0.0.1/tcp/{rest_port}")),
            ("CLUSTER_EMBEDDED_LISTENMULTIADDRESS", format!("/ip4/127.0.0.1/tcp/{node_port}")),
        ] {
            wishes.insert(variable.to_owned(), value);
        }
        let new = NewConfig {
            node: NodeKind::Embedded,
            secret: secret.clone(),
            random_ports: true,
            ..NewConfig::with_new_secret()
        };
        let source = new.write(&folder, &wishes)?.config.cluster.identity;
        ensure_identity(&folder, &source)?;
        let id = load_identity(&folder, &source)?.peer();
        let log = folder.file("daemon.log");
        let rest = SocketAddr::from((Ipv4Addr::LOCALHOST, rest_port));
        Ok(Self { name, id, rest, log, folder, swarm_port, child: None })
    }

    /// Where other peers reach it.
    fn swarm_address(&self) -> Multiaddr {
        let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.swarm_port, self.id);
        address.parse().expect("an address of numbers and a peer id is an address")
    }

    /// The REST API as `ipfs-cluster-ctl --host` takes it.
    pub(super) fn host(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.rest.port())
    }

    /// The process, while there is one.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    async fn start(&mut self, executable: &Path, bootstrap: Option<&Multiaddr>) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("opening the log")?;
        let seen = log.metadata()?.len();
        let mut command = Command::new(executable);
        command.arg("--config").arg(self.folder.path()).args(["--loglevel", "info", "daemon"]);
        if let Some(address) = bootstrap {
            command.args(["--bootstrap", &address.to_string()]);
        }
        // The caller's own configuration has no say in the demo.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("CLUSTER_") || name.starts_with("IPFS_CLUSTER_") {
                command.env_remove(&variable);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("starting {}", self.name))?);
        self.wait_until_ready(seen).await.with_context(|| format!("starting {}", self.name))
    }

    async fn wait_until_ready(&mut self, seen: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                bail!("it ended with {status}:\n{}", self.last_lines(15));
            }
            if self.log_since(seen).contains(READY) && api::id(self.rest).await.is_ok_and(|id| id.id == self.id) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("it was not ready after {READY_WITHIN:?}:\n{}", self.last_lines(15));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn log_since(&self, seen: u64) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let seen = usize::try_from(seen).unwrap_or(usize::MAX);
        String::from_utf8_lossy(log.get(seen..).unwrap_or_default()).into_owned()
    }

    /// The end of its log.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let log = self.log_since(0);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Ends the process as a power cut would: SIGKILL, no chance to write anything.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it is not running")?;
        child.kill().await.context("killing it")
    }

    /// Sends SIGTERM, through the shell: the standard library has no call for it.
    async fn ask_to_stop(&self) {
        if let Some(process) = self.process() {
            drop(Command::new("sh").arg("-c").arg(format!("kill -TERM {process}")).status().await);
        }
    }
}
