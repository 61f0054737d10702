//! A running server and a client that writes bytes, so that malformed requests can be sent too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_api::{ApiServer, RestConfig};
use cluster_core::ports::Clock;
use cluster_core::task::TaskGroup;
use cluster_types::{Protocol, Timestamp, parse_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{FakeCluster, Script};

/// Longer than anything here takes; a test that hits it has hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that stands still.
pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }
}

/// A server, what it serves, and its tasks.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) tasks: TaskGroup,
    pub(crate) port: u16,
}

pub(crate) fn config() -> RestConfig {
    RestConfig {
        listen: vec![parse_address("/ip4/127.0.0.1/tcp/0").unwrap()],
        headers: BTreeMap::from([("X-Extra".to_owned(), vec!["one".to_owned(), "two".to_owned()])]),
        clock: Arc::new(StoppedClock),
        ..RestConfig::default()
    }
}

impl World {
    pub(crate) async fn new(script: Script) -> Self {
        Self::with(config(), script).await
    }

    pub(crate) async fn with(config: RestConfig, script: Script) -> Self {
        let (cluster, tasks) = (FakeCluster::new(script), TaskGroup::new());
        let server = ApiServer::bind(config).await.unwrap().serve(Arc::clone(&cluster) as _, &tasks);
        Self::of(server, cluster, tasks)
    }

    /// A server that was started in some other way.
    pub(crate) fn of(server: ApiServer, cluster: Arc<FakeCluster>, tasks: TaskGroup) -> Self {
        let mut parts = server.local_addresses().iter().flat_map(|address| address.iter());
        let port = parts.find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
        Self { server, cluster, tasks, port: port.unwrap_or_default() }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends bytes as they are, and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = socket.write_all(bytes).await;
        read_all(&mut socket).await
    }

    /// Sends a request without a body on its own connection.
    pub(crate) async fn ask(&self, method: &str, target: &str) -> String {
        self.raw(request(method, target, "", b"").as_slice()).await
    }
}

/// A request that asks for the connection to be closed.
pub(crate) fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let host = if headers.starts_with("Host:") { "" } else { "Host: localhost\r\n" };
    let head = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{length}{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Everything until the other side closes.
pub(crate) async fn read_all(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until `text` has come.
pub(crate) async fn read_until(socket: &mut (impl AsyncReadExt + Unpin), text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        let count = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(count, 0, "the server closed after {seen:?}");
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    seen
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default()
}
