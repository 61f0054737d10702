//! What the REST server is told: where to listen, and its limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::{Clock, SystemClock};
use cluster_types::{Multiaddr, Protocol};

/// The settings of the REST API.
#[derive(Clone)]
pub struct RestConfig {
    /// Where to listen: TCP (port 0 takes a free one) and unix sockets.
    pub listen: Vec<Multiaddr>,
    /// How long a client may take to send the head of a request.
    pub read_header_timeout: Duration,
    /// How long a kept connection may be silent, an upload may stall, and a client may refuse to read.
    pub idle_timeout: Duration,
    /// Size of a request's head; [`RestConfig::HEADER_SLACK`] is added. Above it: 431.
    pub max_header_bytes: usize,
    /// Certificate and key; with them every listener speaks TLS and nothing else.
    pub tls: Option<TlsFiles>,
    /// Who may ask; everyone when there is nobody.
    pub credentials: Option<Credentials>,
    /// Names, besides `localhost`, by which a loopback listener may be called; a page could take over any other name.
    pub allowed_hosts: Vec<String>,
    /// Whose pages may ask: origins with at most one `*` each; none: all.
    pub allowed_origins: Vec<String>,
    /// With which methods; none: only to read.
    pub allowed_methods: Vec<String>,
    /// Headers added to every answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Connections at once, over all listeners; more wait in the listen queue.
    pub max_connections: usize,
    /// Requests that change state at once; more are refused with 503. They outlive their connection, so the number
    /// of connections does not bound them.
    pub max_writes: usize,
    /// What `expire-in` counts from.
    pub clock: Arc<dyn Clock>,
}

impl RestConfig {
    /// What the original allows above the configured size of a head.
    pub const HEADER_SLACK: usize = 4096;
}

/// Where the certificate is, with those that vouch for it, and its key; both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Users and their passwords.
#[derive(Clone)]
pub struct Credentials(pub BTreeMap<String, String>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.len()).finish()
    }
}

impl Default for RestConfig {
    fn default() -> Self {
        let mut listen = Multiaddr::empty();
        listen.push(Protocol::Ip4([127, 0, 0, 1].into()));
        listen.push(Protocol::Tcp(9094));
        Self {
            listen: vec![listen],
            read_header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            max_header_bytes: 4096,
            tls: None,
            credentials: None,
            allowed_hosts: Vec::new(),
            allowed_origins: vec!["*".to_owned()],
            allowed_methods: vec!["GET".to_owned()],
            headers: BTreeMap::new(),
            max_connections: 1024,
            max_writes: 1024,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for RestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values may be secrets; their names are not.
        f.debug_struct("RestConfig")
            .field("listen", &self.listen)
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}
