//! What the IPFS proxy is told: where to listen, which node is behind it, and its limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::{Clock, SystemClock};
use cluster_types::{Multiaddr, Protocol};

use crate::config::RestConfig;

/// The settings of the IPFS proxy.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Where to listen: TCP (port 0 takes a free one) and unix sockets.
    pub listen: Vec<Multiaddr>,
    /// The RPC of the node: `/ip4/…/tcp/…`, `/dns/…/tcp/…`, each with `/http` or `/https` if wanted, or `/unix/…`.
    pub node: Multiaddr,
    /// Whether TLS is spoken to the node whatever its address says.
    pub node_https: bool,
    /// Where requests are logged, a line each; nothing: in the log of the program, as
    /// [`PROXY_ACCESS_LOG`](crate::PROXY_ACCESS_LOG).
    pub log_file: Option<PathBuf>,
    /// How long a client may take to send a request whole, its body included; nothing: no limit.
    pub read_timeout: Option<Duration>,
    /// How long a client may take to send the head of a request; nothing: as `read_timeout`.
    pub read_header_timeout: Option<Duration>,
    /// How long after its head a request may still be answered; nothing: no limit.
    pub write_timeout: Option<Duration>,
    /// How long a kept connection, or an upload, may be silent; nothing: as `read_timeout`.
    pub idle_timeout: Option<Duration>,
    /// How long a request waits for a peer that still starts or joins its cluster.
    pub start_timeout: Duration,
    /// Size of a request's head; [`RestConfig::HEADER_SLACK`] is added. Above it: 431.
    pub max_header_bytes: usize,
    /// Headers of the node that answers of the cluster have, too, besides `Access-Control-Expose-Headers`.
    pub extract_headers_extra: Vec<String>,
    /// Where the node is asked for them.
    pub extract_headers_path: String,
    /// How long they are kept; zero: for ever.
    pub extract_headers_ttl: Duration,
    /// Connections at once, over all listeners; more wait.
    pub max_connections: usize,
    /// Connections at once from one address, 0: as many as there are; more are closed.
    pub max_connections_per_ip: usize,
    /// Requests that change the pinset at once; more are refused.
    pub max_writes: usize,
    /// What `expire-in` counts from.
    pub clock: Arc<dyn Clock>,
}

impl ProxyConfig {
    /// What the server keeps to.
    pub(super) fn limits(&self) -> RestConfig {
        RestConfig {
            listen: self.listen.clone(),
            read_timeout: self.read_timeout,
            read_header_timeout: self.read_header_timeout,
            write_timeout: self.write_timeout,
            idle_timeout: self.idle_timeout,
            start_timeout: self.start_timeout,
            max_header_bytes: self.max_header_bytes,
            max_connections: self.max_connections,
            max_connections_per_ip: self.max_connections_per_ip,
            max_writes: self.max_writes,
            ..RestConfig::default()
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        let rest = RestConfig::default();
        Self {
            listen: vec![loopback(9095)],
            node: loopback(5001),
            node_https: false,
            log_file: None,
            read_timeout: None,
            read_header_timeout: Some(Duration::from_secs(5)),
            write_timeout: None,
            idle_timeout: Some(Duration::from_secs(60)),
            start_timeout: rest.start_timeout,
            max_header_bytes: rest.max_header_bytes,
            extract_headers_extra: Vec::new(),
            extract_headers_path: "/api/v0/version".to_owned(),
            extract_headers_ttl: Duration::from_secs(300),
            max_connections: rest.max_connections,
            max_connections_per_ip: rest.max_connections_per_ip,
            max_writes: rest.max_writes,
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConfig").field("listen", &self.listen).field("node", &self.node).finish_non_exhaustive()
    }
}

fn loopback(port: u16) -> Multiaddr {
    let mut address = Multiaddr::empty();
    address.push(Protocol::Ip4([127, 0, 0, 1].into()));
    address.push(Protocol::Tcp(port));
    address
}
