//! Followers of a cluster of processes: `ipfs-cluster-follow`, with its configuration from a URL.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_types::{Multiaddr, PeerId, StateReport};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{ProcessCluster, START_LIMIT, binary, free_port};
use crate::wait;

/// One follower.
#[derive(Debug)]
struct Follower {
    name: String,
    environment: BTreeMap<String, String>,
    swarm_port: u16,
    http: reqwest::Client,
    child: Mutex<Option<Child>>,
}

/// The followers of a cluster, each a process.
#[derive(Debug)]
pub struct Followers {
    folder: TempDir,
    url: String,
    followers: Vec<Follower>,
    ids: Mutex<BTreeMap<usize, PeerId>>,
}

impl Followers {
    /// Nobody yet; the configuration of `cluster`'s followers, who trust its members, is served from now on.
    pub fn of(cluster: &ProcessCluster) -> Result<Self> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(cluster.peers[0].folder.join("service.json"))?)?;
        let ids: Vec<&str> = cluster.peers.iter().map(crate::process::Peer::id).collect();
        config["consensus"] = json!({ "crdt": { "trusted_peers": ids } });
        let addresses: Vec<String> =
            cluster.addresses().into_iter().map(|(peer, address)| format!("{address}/p2p/{peer}")).collect();
        config["cluster"]["peer_addresses"] = json!(addresses);
        let url = serve(config.to_string())?;
        Ok(Self { folder: tempfile::tempdir()?, url, followers: Vec::new(), ids: Mutex::default() })
    }

    /// Makes one more, starts it, and waits until it answers.
    pub async fn add(&mut self) -> Result<usize> {
        let number = self.followers.len();
        let name = format!("follower{number}");
        let (swarm_port, node_port) = (free_port()?, free_port()?);
        let environment = BTreeMap::from([
            ("CLUSTER_PEERNAME".to_owned(), name.clone()),
            ("CLUSTER_LISTENMULTIADDRESS".to_owned(), format!("/ip4/127.0.0.1/tcp/{swarm_port}")),
            ("CLUSTER_EMBEDDED_LISTENMULTIADDRESS".to_owned(), format!("/ip4/127.0.0.1/tcp/{node_port}")),
        ]);
        let socket = self.folder.path().join(&name).join("api-socket");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).unix_socket(socket).build()?;
        self.followers.push(Follower { name, environment, swarm_port, http, child: Mutex::new(None) });
        self.start(number).await?;
        Ok(number)
    }

    /// Starts one that is down, and waits until it answers.
    pub async fn start(&self, number: usize) -> Result<()> {
        let follower = &self.followers[number];
        let log = File::options().create(true).append(true).open(self.log_file(number))?;
        let mut command = self.command(number)?;
        command.args(["run", "--init", &self.url]).stdout(log.try_clone()?).stderr(log);
        *follower.child.lock() = Some(command.spawn()?);
        let answered = wait::until("a follower to answer", START_LIMIT, || async {
            self.get::<Value>(number, "/id").await.map_err(|error| format!("{error:#}\n{}", self.log(number)))
        });
        let id = answered.await;
        let id: PeerId = id["id"].as_str().context("an id")?.parse()?;
        self.ids.lock().insert(number, id);
        Ok(())
    }

    /// Asks one to stop and waits until it has; gives its exit code.
    pub async fn stop(&self, number: usize) -> Result<Option<i32>> {
        let Some(mut child) = self.followers[number].child.lock().take() else { return Ok(None) };
        ensure!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?.success(), "kill failed");
        let status = wait::until("a follower to stop", Duration::from_secs(60), || {
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

    /// The numbers of those that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.followers.len()).filter(|number| self.followers[*number].child.lock().is_some()).collect()
    }

    /// Where those are reached that were started.
    pub fn addresses(&self) -> Vec<(PeerId, Multiaddr)> {
        let ids = self.ids.lock();
        let place = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a TCP address");
        ids.iter().map(|(number, id)| (*id, place(self.followers[*number].swarm_port))).collect()
    }

    /// Asks one over its socket; anything but success is an error.
    pub async fn get<T: DeserializeOwned>(&self, number: usize, path: &str) -> Result<T> {
        let (status, body) = self.send(number, Method::GET, path).await?;
        ensure!(status.is_success(), "{path}: {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
    }

    /// Sends a request over a follower's socket.
    pub async fn send(&self, number: usize, method: Method, path: &str) -> Result<(StatusCode, String)> {
        let url = format!("http://localhost{path}");
        let answer = self.followers[number].http.request(method, url).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Where one is in the log.
    pub async fn state(&self, number: usize) -> Result<StateReport> {
        self.get(number, "/state").await
    }

    /// The pinset as one lists it, line by line.
    pub async fn list(&self, number: usize) -> Result<String> {
        Ok(self.send(number, Method::GET, "/allocations").await?.1)
    }

    /// Runs the program about one of them and gives what it prints.
    pub async fn program(&self, number: usize, words: &[&str]) -> Result<String> {
        let mut command = self.command(number)?;
        command.args(words);
        printed(command).await
    }

    /// Runs the program without a name.
    pub async fn overview(&self) -> Result<String> {
        let mut command = follow()?;
        command.arg("--config").arg(self.folder.path());
        printed(command).await
    }

    fn command(&self, number: usize) -> Result<Command> {
        let follower = &self.followers[number];
        let mut command = follow()?;
        command.arg("--config").arg(self.folder.path()).arg(&follower.name);
        command.envs(&follower.environment).stdin(Stdio::null());
        Ok(command)
    }

    fn log_file(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.followers[number].name))
    }

    /// What one has printed.
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.log_file(number)).unwrap_or_default()
    }
}

impl Drop for Followers {
    #[expect(clippy::print_stdout, reason = "whoever looks for the cause needs it")]
    fn drop(&mut self) {
        for (number, follower) in self.followers.iter().enumerate() {
            if let Some(mut child) = follower.child.lock().take() {
                drop(child.kill());
                drop(child.wait());
            }
            if std::thread::panicking() {
                println!("what {} printed:\n{}", follower.name, self.log(number));
            }
        }
    }
}

/// The program, without what the caller's environment would tell it.
fn follow() -> Result<Command> {
    let mut command = Command::new(binary("ipfs-cluster-follow")?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CLUSTER_") || name.starts_with("IPFS_") {
            command.env_remove(name.as_ref());
        }
    }
    Ok(command)
}

async fn printed(command: Command) -> Result<String> {
    let output = tokio::process::Command::from(command).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{:?}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Answers every request with a document, for as long as the process lives; the URL it does so at.
fn serve(document: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/service.json", listener.local_addr()?);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { continue };
            let mut head = [0; 4096];
            drop(socket.read(&mut head));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", document.len());
            drop(socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(document.as_bytes())));
        }
    });
    Ok(url)
}
