//! The IPFS proxy over real sockets, between a scripted cluster and a node that answers from a script.

mod golden;
mod node;
mod passing;

use std::sync::Arc;

use cluster_api::{ProxyConfig, ProxyServer};
use cluster_core::task::TaskGroup;
use cluster_types::{Protocol, parse_address};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::fake::{FakeCluster, Script};
use crate::harness::{StoppedClock, read_all};
use node::FakeNode;

/// A proxy, what is behind it, and its tasks.
struct World {
    server: ProxyServer,
    cluster: Arc<FakeCluster>,
    node: FakeNode,
    _tasks: TaskGroup,
    port: u16,
}

impl World {
    async fn new(script: Script) -> Self {
        Self::with(script, |_config| ()).await
    }

    async fn with(script: Script, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let node = FakeNode::start().await;
        let mut config = ProxyConfig {
            listen: vec![parse_address("/ip4/127.0.0.1/tcp/0").unwrap()],
            node: parse_address(&format!("/ip4/127.0.0.1/tcp/{}", node.port)).unwrap(),
            extract_headers_extra: vec!["X-Of-Node".to_owned()],
            clock: Arc::new(StoppedClock),
            ..ProxyConfig::default()
        };
        change(&mut config);
        let (cluster, tasks) = (FakeCluster::new(script), TaskGroup::new());
        let server = ProxyServer::bind(config).await.unwrap().open(&tasks).unwrap();
        server.begin(Arc::clone(&cluster) as _);
        let mut parts = server.local_addresses().iter().flat_map(|address| address.iter());
        let port = parts.find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
        Self { server, cluster, node, _tasks: tasks, port: port.unwrap_or_default() }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends bytes as they are, and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = socket.write_all(bytes).await;
        read_all(&mut socket).await
    }
}
