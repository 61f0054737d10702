//! Clusters of real processes: each peer has its own folder, ports and log, and can be killed like a process.
//!
//! They run on loopback, or each on a machine of its own (`namespaces`), where the network between them can be cut. The
//! binaries are found beside the running test (`make test` builds them first). Logs are kept in the cluster's folder; when
//! a test fails, the folder stays and its path is printed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster_types::{Multiaddr, PeerId, Pin, StateReport};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::namespaces::Network;
use crate::wait;

/// How long a peer may take to get ready on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a cluster may take to come to rest.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// How long an answer over HTTP may take.
const HTTP_LIMIT: Duration = Duration::from_secs(60);
/// The variable that says where a peer's REST API is.
const REST_LISTEN: &str = "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS";
/// The variable that says where a peer's IPFS proxy is.
const PROXY_LISTEN: &str = "CLUSTER_IPFSPROXY_LISTENMULTIADDRESS";
/// The variable that says where a peer's pinning service is.
const PINNING_LISTEN: &str = "CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS";

/// A binary of this project.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("finding the running test")?;
    let found = test.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built; run `make build` first"))
}

/// Which IPFS node a peer looks after.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// The one inside the peer.
    Embedded,
    /// A Kubo, by the multiaddress of its RPC.
    Kubo(String),
}

/// What peers do without a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They refuse writes.
    Raft,
    /// They accept them as eventual.
    Crdt,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Where its files are.
    pub folder: PathBuf,
    id: OnceLock<String>,
    environment: BTreeMap<String, String>,
    http: reqwest::Client,
    host: Ipv4Addr,
    api_port: u16,
    swarm_port: u16,
    node_port: u16,
    proxy_port: u16,
    pinning_port: u16,
    child: Mutex<Option<Child>>,
}

impl Peer {
    /// Its peer id; empty before the first start.
    pub fn id(&self) -> &str {
        self.id.get().map_or("", String::as_str)
    }
}

/// A cluster of processes on this machine.
#[derive(Debug)]
pub struct ProcessCluster {
    /// The peers, in the order they were started.
    pub peers: Vec<Peer>,
    mode: Mode,
    network: Option<Network>,
    folder: Option<TempDir>,
    secret: String,
}

impl ProcessCluster {
    /// Starts as many peers as there are nodes, in raft mode; they have become one cluster when this returns.
    pub async fn start(nodes: &[NodeKind]) -> Result<Self> {
        Self::start_in(Mode::Raft, nodes).await
    }

    /// Like [`start`](Self::start), in any mode.
    pub async fn start_in(mode: Mode, nodes: &[NodeKind]) -> Result<Self> {
        let mut cluster = Self::empty()?;
        cluster.mode = mode;
        for node in nodes {
            cluster.add_peer(node).await?;
        }
        cluster.wait_voters(nodes.len()).await;
        cluster.wait_metrics(nodes.len()).await;
        Ok(cluster)
    }

    /// A cluster without peers that has the same secret and mode as this one.
    pub fn beside(&self) -> Result<Self> {
        let mut beside = Self::empty()?;
        (beside.mode, beside.secret) = (self.mode, self.secret.clone());
        Ok(beside)
    }

    /// A cluster without peers, in any mode.
    pub fn empty_in(mode: Mode) -> Result<Self> {
        let mut cluster = Self::empty()?;
        cluster.mode = mode;
        Ok(cluster)
    }

    /// Adds a peer for each node; they have become one cluster when this returns.
    pub async fn start_more(mut self, nodes: &[NodeKind]) -> Result<Self> {
        for node in nodes {
            self.add_peer(node).await?;
        }
        self.wait_metrics(nodes.len()).await;
        Ok(self)
    }

    /// Starts a peer that is down with `--bootstrap` and an address of another cluster, and waits until it answers.
    pub async fn start_joining(&self, number: usize, address: &str) -> Result<()> {
        self.spawn_with(number, &["--bootstrap", address])?;
        self.wait_started(number).await
    }

    /// Starts so many peers, each on a machine of its own, with these variables; they have become one cluster when this
    /// returns. `None` where there can be no such machines.
    pub async fn start_apart(mode: Mode, peers: usize, variables: &[(&str, &str)]) -> Result<Option<Self>> {
        let Some(network) = Network::new(peers)? else { return Ok(None) };
        let mut cluster = Self::empty()?;
        (cluster.mode, cluster.network) = (mode, Some(network));
        for number in 0..peers {
            cluster.make_peer(&NodeKind::Embedded)?;
            for (name, value) in variables {
                cluster.set_variable(number, name, value);
            }
            cluster.start_peer(number).await?;
        }
        cluster.wait_voters(peers).await;
        cluster.wait_metrics(peers).await;
        Ok(Some(cluster))
    }

    /// A cluster without peers, for loopback.
    pub fn empty() -> Result<Self> {
        // Another test of this process may have chosen already; any choice will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let secret: String = (0..32).map(|_| format!("{:02x}", rand::random::<u8>())).collect();
        Ok(Self { peers: Vec::new(), mode: Mode::Raft, network: None, folder: Some(tempfile::tempdir()?), secret })
    }

    /// Makes one more peer, starts it, and waits until it is ready.
    pub async fn add_peer(&mut self, node: &NodeKind) -> Result<usize> {
        let number = self.make_peer(node)?;
        self.start_peer(number).await?;
        Ok(number)
    }

    /// Makes one more peer: its folder and configuration. It does not run.
    pub fn make_peer(&mut self, node: &NodeKind) -> Result<usize> {
        let number = self.peers.len();
        let root = self.folder.as_ref().context("the cluster was ended")?.path();
        let folder = root.join(format!("peer{number}"));
        fs::create_dir_all(&folder)?;
        let (api_port, swarm_port, node_port) = (free_port()?, free_port()?, free_port()?);
        let (proxy_port, pinning_port) = (free_port()?, free_port()?);
        let host = self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |_| Network::address(number));
        // No packet gets from here to a machine of its own, but a socket in the file system is in reach of both.
        let socket = self.network.as_ref().map(|_| folder.join("api.sock"));
        let mut http = reqwest::Client::builder().timeout(HTTP_LIMIT);
        let mut api = format!("/ip4/{host}/tcp/{api_port}");
        if let Some(socket) = socket {
            api = format!("/unix{}", socket.display());
            http = http.unix_socket(socket);
        }
        let mut environment = environment(number, &self.secret, &api, &format!("/ip4/{host}/tcp/{swarm_port}"));
        environment.insert(PROXY_LISTEN.to_owned(), format!("/ip4/{host}/tcp/{proxy_port}"));
        environment.insert(PINNING_LISTEN.to_owned(), format!("/ip4/{host}/tcp/{pinning_port}"));
        let kind = match node {
            NodeKind::Embedded => {
                let listen = format!("/ip4/{host}/tcp/{node_port}");
                environment.insert("CLUSTER_EMBEDDED_LISTENMULTIADDRESS".to_owned(), listen);
                "embedded"
            }
            NodeKind::Kubo(rpc) => {
                environment.insert("CLUSTER_IPFSHTTP_NODEMULTIADDRESS".to_owned(), rpc.clone());
                environment.insert("CLUSTER_IPFSPROXY_NODEMULTIADDRESS".to_owned(), rpc.clone());
                "kubo"
            }
        };
        let mode = match self.mode {
            Mode::Raft => "raft",
            Mode::Crdt => "crdt",
        };
        let init = service(&[])?
            .args(["init", "--ipfs", kind, "--force", "--consensus", mode])
            .env("IPFS_CLUSTER_PATH", &folder)
            .envs(&environment)
            .stdin(Stdio::null())
            .output()?;
        ensure!(init.status.success(), "init failed: {}", String::from_utf8_lossy(&init.stderr));
        let (id, http, child) = (OnceLock::new(), http.build()?, Mutex::new(None));
        self.peers.push(Peer {
            folder,
            id,
            environment,
            http,
            host,
            api_port,
            swarm_port,
            node_port,
            proxy_port,
            pinning_port,
            child,
        });
        Ok(number)
    }

    /// Starts a peer that is down, and waits until it answers.
    pub async fn start_peer(&self, number: usize) -> Result<()> {
        self.start_daemon(number, self.peers[number].id().is_empty()).await
    }

    /// Starts a peer that has lost its state: it joins the others once more.
    pub async fn rejoin_peer(&self, number: usize) -> Result<()> {
        self.start_daemon(number, true).await
    }

    /// Starts a peer that is down, and waits until it answers, whether or not it finds a leader.
    pub async fn start_peer_alone(&self, number: usize) -> Result<()> {
        self.spawn_daemon(number, false)?;
        self.wait_ready(number, |_state| true).await
    }

    async fn start_daemon(&self, number: usize, join: bool) -> Result<()> {
        self.spawn_daemon(number, join)?;
        self.wait_started(number).await
    }

    fn spawn_daemon(&self, number: usize, join: bool) -> Result<()> {
        match self.member_address(number).filter(|_| join) {
            Some(address) => self.spawn_with(number, &["--bootstrap", &address]),
            None => self.spawn_with(number, &[]),
        }
    }

    fn spawn_with(&self, number: usize, flags: &[&str]) -> Result<()> {
        let peer = &self.peers[number];
        ensure!(!self.is_running(number), "peer {number} is running already");
        let log = File::options().create(true).append(true).open(peer.folder.join("log"))?;
        let mut command = self.daemon(number)?;
        command.args(flags).stdout(log.try_clone()?).stderr(log);
        *peer.child.lock() = Some(command.spawn()?);
        Ok(())
    }

    /// The swarm address of a member other than `number`.
    pub fn member_address(&self, number: usize) -> Option<String> {
        let other = self.peers.iter().enumerate().find(|(other, peer)| *other != number && !peer.id().is_empty());
        other.map(|(_, peer)| format!("/ip4/{}/tcp/{}/p2p/{}", peer.host, peer.swarm_port, peer.id()))
    }

    fn daemon(&self, number: usize) -> Result<Command> {
        let peer = &self.peers[number];
        let machine = self.network.as_ref().map(|network| network.run_on(number)).unwrap_or_default();
        let mut command = service(&machine)?;
        command.arg("daemon").env("IPFS_CLUSTER_PATH", &peer.folder).envs(&peer.environment).stdin(Stdio::null());
        Ok(command)
    }

    /// A run of the program in a peer's folder, with the peer's variables.
    pub fn tool(&self, number: usize, arguments: &[&str]) -> Result<Command> {
        let peer = &self.peers[number];
        let mut command = service(&[])?;
        command.args(arguments).env("IPFS_CLUSTER_PATH", &peer.folder).envs(&peer.environment).stdin(Stdio::null());
        Ok(command)
    }

    /// From now on a peer is started with this variable.
    pub fn set_variable(&mut self, number: usize, name: &str, value: &str) {
        self.peers[number].environment.insert(name.to_owned(), value.to_owned());
    }

    /// From now on a peer's file says what this variable said.
    pub fn forget_variable(&mut self, number: usize, name: &str) {
        self.peers[number].environment.remove(name);
    }

    /// Starts a daemon that must give up by itself with exit code 1, and gives what it said.
    pub async fn refused_start(&self, number: usize, flags: &[&str], variables: &[(&str, &str)]) -> Result<String> {
        let mut command = self.daemon(number)?;
        command.args(flags).envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn()?;
        let ended = tokio::time::timeout(START_LIMIT, child.wait_with_output()).await;
        let output = ended.with_context(|| format!("the daemon has not given up within {START_LIMIT:?}"))??;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
        Ok(said)
    }

    /// Runs another command of the program in a peer's folder to its end; gives the exit code and what it said. With
    /// `kill_after` it is killed then, if it still runs.
    pub async fn run_command(
        &self,
        number: usize,
        words: &[&str],
        kill_after: Option<Duration>,
    ) -> Result<(Option<i32>, String)> {
        let peer = &self.peers[number];
        let mut command = service(&[])?;
        command.args(words).env("IPFS_CLUSTER_PATH", &peer.folder).envs(&peer.environment).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut stdout, mut stderr) = stdout.zip(stderr).context("its output is piped")?;
        let limit = kill_after.unwrap_or(START_LIMIT);
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let ended = tokio::time::timeout(limit, async {
            tokio::try_join!(stdout.read_to_end(&mut said), stderr.read_to_end(&mut complained), child.wait())
        });
        match ended.await {
            Ok(ended) => {
                let (_, _, status) = ended?;
                said.extend(complained);
                Ok((status.code(), String::from_utf8_lossy(&said).into_owned()))
            }
            Err(_late) => {
                // Waits for its end: until then it holds the lock of the folder.
                child.kill().await?;
                ensure!(kill_after.is_some(), "{words:?} has not ended within {limit:?}");
                Ok((None, String::new()))
            }
        }
    }

    /// Moves a peer's state away.
    pub fn lose_state(&self, number: usize) -> Result<()> {
        ensure!(!self.is_running(number), "peer {number} is running");
        let folder = &self.peers[number].folder;
        fs::rename(folder.join("state"), folder.join("state.lost")).context("moving the state away")
    }

    /// Waits until a peer that was only spawned answers and knows a leader.
    pub async fn wait_started(&self, number: usize) -> Result<()> {
        self.wait_ready(number, |state| state.leader.is_some()).await
    }

    async fn wait_ready(&self, number: usize, is_enough: impl Fn(&StateReport) -> bool) -> Result<()> {
        let started = tokio::time::Instant::now();
        loop {
            if let Ok(id) = self.get::<serde_json::Value>(number, "/id").await
                && let Some(id) = id["id"].as_str()
                && self.state(number).await.is_ok_and(|state| is_enough(&state))
            {
                let known = self.peers[number].id.get_or_init(|| id.to_owned());
                ensure!(known == id, "peer {number} has another id than before");
                return Ok(());
            }
            let ended = self.peers[number].child.lock().as_mut().and_then(|child| child.try_wait().transpose());
            if let Some(status) = ended {
                bail!("peer {number} ended: {status:?}; its log:\n{}", self.log_tail(number));
            }
            if started.elapsed() > START_LIMIT {
                bail!("peer {number} is not ready; its log:\n{}", self.log_tail(number));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills a peer: no last word, no flush.
    pub fn kill(&self, number: usize) -> Result<()> {
        let child = self.peers[number].child.lock().take();
        if let Some(mut child) = child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks a peer to stop and waits until it has; gives its exit code.
    pub async fn stop(&self, number: usize) -> Result<Option<i32>> {
        self.stop_by(number, &["-TERM"]).await
    }

    /// Sends these signals to a peer, one after the other, and waits until it has stopped; gives its exit code.
    pub async fn stop_by(&self, number: usize, signals: &[&str]) -> Result<Option<i32>> {
        let child = self.peers[number].child.lock().take();
        let Some(mut child) = child else { return Ok(None) };
        let pid = child.id().to_string();
        for signal in signals {
            ensure!(Command::new("kill").args([signal, pid.as_str()]).status()?.success(), "kill {signal} failed");
        }
        let status = wait::until("the peer to stop", Duration::from_secs(60), || {
            let status = child.try_wait();
            async move {
                match status {
                    Ok(Some(status)) => Ok(status),
                    other => Err(format!("{other:?}")),
                }
            }
        });
        Ok(status.await.code())
    }

    /// Stops the process of a peer where it stands, without its knowing, until [`resume`](Self::resume).
    pub fn pause(&self, number: usize) -> Result<()> {
        self.signal(number, "-STOP")
    }

    /// Lets a paused process go on.
    pub fn resume(&self, number: usize) -> Result<()> {
        self.signal(number, "-CONT")
    }

    fn signal(&self, number: usize, name: &str) -> Result<()> {
        let pid = self.pid(number).with_context(|| format!("peer {number} does not run"))?;
        ensure!(Command::new("kill").args([name, &pid.to_string()]).status()?.success(), "kill {name} failed");
        Ok(())
    }

    /// Whether a peer runs.
    pub fn is_running(&self, number: usize) -> bool {
        self.peers[number].child.lock().is_some()
    }

    /// The process id of a running peer.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.peers[number].child.lock().as_ref().map(Child::id)
    }

    /// Where a peer's REST API is.
    pub fn url(&self, number: usize, path: &str) -> String {
        format!("http://{}:{}{path}", self.peers[number].host, self.peers[number].api_port)
    }

    /// Asks a peer over HTTP; on loopback anybody else as well.
    pub fn http(&self, number: usize) -> &reqwest::Client {
        &self.peers[number].http
    }

    /// The multiaddress of a peer's REST API, for ctl.
    pub fn api_address(&self, number: usize) -> String {
        self.peers[number].environment[REST_LISTEN].clone()
    }

    /// The port of a peer's REST API.
    pub fn api_port(&self, number: usize) -> u16 {
        self.peers[number].api_port
    }

    /// The multiaddress of a peer's IPFS proxy.
    pub fn proxy_address(&self, number: usize) -> String {
        let peer = &self.peers[number];
        format!("/ip4/{}/tcp/{}", peer.host, peer.proxy_port)
    }

    /// The URL of a peer's pinning service.
    pub fn pinning_url(&self, number: usize) -> String {
        let peer = &self.peers[number];
        format!("http://{}:{}", peer.host, peer.pinning_port)
    }

    /// The port of a peer's embedded IPFS node.
    pub fn node_port(&self, number: usize) -> u16 {
        self.peers[number].node_port
    }

    /// Fails unless the process that was started for a peer still runs.
    pub fn check_alive(&self, number: usize) -> Result<()> {
        let mut child = self.peers[number].child.lock();
        let ended = child.as_mut().map(Child::try_wait).transpose()?.flatten();
        ensure!(child.is_some() && ended.is_none(), "peer {number} ended: {ended:?}\n{}", self.log_tail(number));
        Ok(())
    }

    /// The key of the private network.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Where the peers are reached that have been started.
    pub fn addresses(&self) -> Vec<(PeerId, Multiaddr)> {
        let started = self.peers.iter().filter_map(|peer| Some((peer.id().parse().ok()?, peer.swarm_port)));
        let place = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a TCP address");
        started.map(|(peer, port)| (peer, place(port))).collect()
    }

    /// The port of a peer's swarm.
    pub fn swarm_port(&self, number: usize) -> u16 {
        self.peers[number].swarm_port
    }

    /// Asks a peer; anything but success is an error.
    pub async fn get<T: DeserializeOwned>(&self, number: usize, path: &str) -> Result<T> {
        let answer = self.http(number).get(self.url(number, path)).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
    }

    /// Where a peer is in the log.
    pub async fn state(&self, number: usize) -> Result<StateReport> {
        self.get(number, "/state").await
    }

    /// The pinset as a peer lists it, by CID.
    pub async fn pins(&self, number: usize) -> Result<BTreeMap<String, Pin>> {
        let answer = self.http(number).get(self.url(number, "/allocations")).send().await?;
        ensure!(answer.status().is_success(), "listing: {}", answer.status());
        let body = answer.text().await?;
        let pins = body.lines().filter(|line| !line.is_empty()).map(serde_json::from_str::<Pin>);
        pins.map(|pin| pin.map(|pin| (pin.cid.to_string(), pin)).map_err(Into::into)).collect()
    }

    /// Which running peer leads.
    pub async fn leader(&self) -> Option<usize> {
        for number in (0..self.peers.len()).filter(|number| self.is_running(*number)) {
            if let Ok(state) = self.state(number).await
                && state.role == cluster_types::Role::Leader
            {
                return Some(number);
            }
        }
        None
    }

    /// Cuts a cluster of peers on machines of their own into groups that do not reach each other. Every peer must be in
    /// one.
    pub fn cut(&self, groups: &[&[usize]]) -> Result<()> {
        self.network.as_ref().context("peers on loopback cannot be cut apart")?.part(groups)
    }

    /// Ends the cut.
    pub fn heal(&self) -> Result<()> {
        self.network.as_ref().context("peers on loopback cannot be cut apart")?.heal()
    }

    /// Starts a peer that is down, and does not wait for it.
    pub fn spawn_peer(&self, number: usize) -> Result<()> {
        self.spawn_daemon(number, false)
    }

    /// Starts a peer as a new member, and does not wait for it.
    pub fn spawn_new_peer(&self, number: usize) -> Result<()> {
        self.spawn_daemon(number, true)
    }

    /// What a peer has logged.
    pub fn log(&self, number: usize) -> String {
        fs::read_to_string(self.peers[number].folder.join("log")).unwrap_or_default()
    }

    /// The end of a peer's log.
    pub fn log_tail(&self, number: usize) -> String {
        let text = self.log(number);
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Where the cluster keeps everything.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(TempDir::path)
    }
}

impl Drop for ProcessCluster {
    #[expect(clippy::print_stdout, reason = "whoever looks for the cause needs the path")]
    fn drop(&mut self) {
        for peer in &self.peers {
            if let Some(mut child) = peer.child.lock().take() {
                drop(child.kill());
                drop(child.wait());
            }
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let kept = folder.keep();
            println!("the peers' folders and logs are kept in {}", kept.display());
        }
    }
}

/// The program, run by `machine` if that says anything, without what the caller's environment would tell it.
fn service(machine: &[String]) -> Result<Command> {
    let program = binary("ipfs-cluster-service")?;
    let mut command = match machine {
        [] => Command::new(program),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(program);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CLUSTER_") || name.starts_with("IPFS_CLUSTER_") {
            command.env_remove(name.as_ref());
        }
    }
    Ok(command)
}

fn environment(number: usize, secret: &str, api: &str, swarm: &str) -> BTreeMap<String, String> {
    let values = [
        ("CLUSTER_PEERNAME", format!("peer{number}")),
        ("CLUSTER_SECRET", secret.to_owned()),
        ("CLUSTER_LISTENMULTIADDRESS", swarm.to_owned()),
        (REST_LISTEN, api.to_owned()),
        ("CLUSTER_MDNSINTERVAL", "0s".to_owned()),
        ("CLUSTER_MONITORPINGINTERVAL", "2s".to_owned()),
        ("CLUSTER_PUBSUBMON_CHECKINTERVAL", "1s".to_owned()),
        ("CLUSTER_DISK_METRICTTL", "5s".to_owned()),
        ("CLUSTER_TAGS_METRICTTL", "5s".to_owned()),
        ("CLUSTER_PINQUEUE_METRICTTL", "5s".to_owned()),
        ("CLUSTER_IPFSHTTP_CONNECTSWARMSDELAY", "1s".to_owned()),
    ];
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A port that belongs to this test for as long as its process runs, also while the peer on it is down. It lies below those
/// that systems give to outgoing connections, and a locked file keeps other tests from it.
pub fn free_port() -> Result<u16> {
    const PORTS: std::ops::Range<u16> = 10_240..32_000;
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("ipfs-cluster-test-ports");
    fs::create_dir_all(&folder)?;
    for _ in 0..1_000 {
        let port = rand::random_range(PORTS);
        let file = File::create(folder.join(port.to_string()))?;
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().push(file);
            return Ok(port);
        }
    }
    bail!("no port is free between {} and {}", PORTS.start, PORTS.end)
}
