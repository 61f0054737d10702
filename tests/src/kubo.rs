//! A real Kubo for tests: a daemon of its own in a temporary folder, on loopback and free ports, that talks to
//! nobody it is not told to. Killed when dropped.
//!
//! `tests/kubo/build.sh` builds the pinned one; without it (and without an `ipfs` on PATH) the tests that want a Kubo
//! are skipped with a line that says so, or fail if `REQUIRE_KUBO` is set, as it should be in CI. Package `cluster-ipfs` includes this file by its path, because it cannot
//! depend on the package that depends on it: so nothing of the workspace may be used here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running Kubo.
#[derive(Debug)]
pub struct KuboDaemon {
    process: Child,
    binary: PathBuf,
    folder: TempDir,
    rpc: String,
    version: String,
}

impl KuboDaemon {
    /// Starts a Kubo; `None`, with a line on standard error, when there is none to start. Panics when it does not
    /// start, because then something is wrong.
    pub async fn start() -> Option<Self> {
        let Some((binary, version)) = find() else {
            skipped();
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(&binary, folder.path(), &["init", "--empty-repo"]);
        configure(folder.path());
        let log = File::create(folder.path().join("daemon.log")).expect("a log file");
        let process = command(&binary, folder.path())
            .args(["daemon", "--migrate=false"])
            .stdout(log.try_clone().expect("the log file, once more"))
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        let mut daemon = Self { process, binary, folder, rpc: String::new(), version };
        daemon.rpc = daemon.wait_for_rpc().await;
        Some(daemon)
    }

    /// The multiaddress of its RPC.
    pub fn rpc(&self) -> &str {
        &self.rpc
    }

    /// The URL of its RPC, without `/api/v0`.
    pub fn url(&self) -> String {
        let port = self.rpc.rsplit('/').next().expect("the RPC listens on a TCP port");
        format!("http://127.0.0.1:{port}")
    }

    /// What `ipfs version` says.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its folder, with `config` and `daemon.log` in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A run of the program, which asks this daemon.
    pub fn command(&self) -> Command {
        command(&self.binary, self.folder.path())
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// The daemon writes its RPC address into a file when it listens, shortly before it answers.
    async fn wait_for_rpc(&mut self) -> String {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(rpc) = std::fs::read_to_string(self.folder.path().join("api")) {
                let rpc = rpc.trim().to_owned();
                let port = rpc.rsplit('/').next().and_then(|port| port.parse().ok()).unwrap_or(0);
                if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return rpc;
                }
            }
            let ended = self.process.try_wait().expect("a process of ours can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "Kubo does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }
}

/// A repository of a Kubo that no daemon uses: for the command line alone.
#[derive(Debug)]
pub struct KuboRepository {
    binary: PathBuf,
    folder: TempDir,
}

impl KuboRepository {
    /// Makes one with the settings of a profile; `None`, with a line on standard error, when there is no Kubo.
    pub fn new(profile: &str) -> Option<Self> {
        let Some((binary, _version)) = find() else {
            skipped();
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(&binary, folder.path(), &["init", "--empty-repo", "--profile", profile]);
        Some(Self { binary, folder })
    }

    /// What a command prints; panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.run_for_bytes(arguments)).into_owned()
    }

    /// The same, byte by byte.
    pub fn run_for_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        run(&self.binary, self.folder.path(), arguments)
    }
}

impl Drop for KuboDaemon {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::print_stderr, reason = "a test that did nothing must say so")]
fn skipped() {
    assert!(std::env::var_os("REQUIRE_KUBO").is_none(), "REQUIRE_KUBO is set, and there is no Kubo");
    eprintln!("skipped: no Kubo on PATH or in the cache; tests/kubo/build.sh builds one");
}

/// The pinned Kubo or the one on PATH, with its version.
fn find() -> Option<(PathBuf, String)> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let pinned = cache.map(|cache| cache.join("ipfs-cluster/kubo/ipfs"));
    pinned.into_iter().chain([PathBuf::from("ipfs")]).find_map(|binary| {
        let output = Command::new(&binary).args(["version", "--number"]).stdin(Stdio::null()).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some((binary, version))
    })
}

fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("IPFS_PATH", folder).env("IPFS_TELEMETRY", "off").env_remove("IPFS_LOGGING").stdin(Stdio::null());
    command
}

fn run(binary: &Path, folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = command(binary, folder).args(arguments).output().expect("Kubo runs");
    assert!(output.status.success(), "ipfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Loopback, free ports, and no talk with the world.
fn configure(folder: &Path) {
    let path = folder.join("config");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("init wrote a config")).expect("a config is JSON");
    for (place, value) in [
        ("/Addresses/API", json!("/ip4/127.0.0.1/tcp/0")),
        ("/Addresses/Gateway", json!([])),
        ("/Addresses/Swarm", json!(["/ip4/127.0.0.1/tcp/0"])),
        ("/AutoConf/Enabled", json!(false)),
        ("/AutoTLS/Enabled", json!(false)),
        ("/AutoNAT/ServiceMode", json!("disabled")),
        ("/Bootstrap", json!([])),
        ("/DNS/Resolvers", json!({})),
        ("/Discovery/MDNS/Enabled", json!(false)),
        ("/HTTPRetrieval/Enabled", json!(false)),
        ("/Ipns/DelegatedPublishers", json!([])),
        ("/Plugins/Plugins/telemetry/Config/Mode", json!("off")),
        ("/Provide/Enabled", json!(false)),
        ("/Routing/DelegatedRouters", json!([])),
        ("/Routing/Type", json!("none")),
        ("/Swarm/DisableNatPortMap", json!(true)),
        ("/Swarm/EnableHolePunching", json!(false)),
        ("/Swarm/RelayClient/Enabled", json!(false)),
        ("/Swarm/RelayService/Enabled", json!(false)),
        ("/Swarm/Transports/Network/Relay", json!(false)),
        ("/Version/SwarmCheckEnabled", json!(false)),
    ] {
        set(&mut config, place, value);
    }
    std::fs::write(&path, serde_json::to_vec_pretty(&config).expect("JSON")).expect("the config is written");
}

/// Sets a place in an object, making the objects on the way.
fn set(config: &mut Value, place: &str, value: Value) {
    let mut at = config;
    for key in place.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = at.as_object_mut().expect("made above").entry(key).or_insert(Value::Null);
    }
    *at = value;
}
