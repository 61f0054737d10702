//! What the REST server is told: where to listen, and its limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::{Clock, SystemClock};
use cluster_types::{Multiaddr, Protocol};

use crate::credentials::Credentials;

/// The settings of the REST API.
#[derive(Clone)]
pub struct RestConfig {
    /// Where to listen: TCP (port 0 takes a free one) and unix sockets.
    pub listen: Vec<Multiaddr>,
    /// How long a client may take to send a request whole, its body included; nothing: no limit.
    pub read_timeout: Option<Duration>,
    /// How long a client may take to send the head of a request; nothing: as `read_timeout`.
    pub read_header_timeout: Option<Duration>,
    /// How long after its head a request may still be answered; nothing: no limit. What it asked for is carried out.
    pub write_timeout: Option<Duration>,
    /// How long a kept connection may be silent, an upload may stall, and a client may refuse to read; nothing: as
    /// `read_timeout`.
    pub idle_timeout: Option<Duration>,
    /// How long a request waits for a peer that still starts or joins its cluster; after it: 503.
    pub start_timeout: Duration,
    /// Size of a request's head; [`RestConfig::HEADER_SLACK`] is added. Above it: 431.
    pub max_header_bytes: usize,
    /// Certificate and key; with them every listener speaks TLS and nothing else.
    pub tls: Option<TlsFiles>,
    /// Who may ask; everyone when there is nobody.
    pub credentials: Option<Credentials>,
    /// Names, besides `localhost`, by which this peer may be called; a page could take over any other name. With none, they
    /// are asked for only where this machine alone can ask, and without a password.
    pub allowed_hosts: Vec<String>,
    /// What pages of other origins may do.
    pub cors: CorsRules,
    /// Where requests are logged, a line each; nothing: in the log of the program, as [`ACCESS_LOG`](crate::ACCESS_LOG).
    pub log_file: Option<PathBuf>,
    /// Headers added to every answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Connections at once, over all listeners; more wait, but for a few places that are kept for `GET /health`.
    pub max_connections: usize,
    /// Connections at once from one address, 0: as many as there are; more are closed.
    pub max_connections_per_ip: usize,
    /// Requests that change state at once; more are refused with 503. They outlive their connection, so the number
    /// of connections does not bound them.
    pub max_writes: usize,
    /// The most bytes of an upload; nothing: no limit. Above it: 413.
    pub max_upload_bytes: Option<u64>,
    /// What `expire-in` counts from.
    pub clock: Arc<dyn Clock>,
}

impl RestConfig {
    /// What the original allows above the configured size of a head.
    pub const HEADER_SLACK: usize = 4096;
}

/// What pages of other origins may do. The default has empty lists, as a file without these keys.
#[derive(Clone, Debug, Default)]
pub struct CorsRules {
    /// Whose pages may ask: origins with at most one `*` each; none: all.
    pub allowed_origins: Vec<String>,
    /// With which methods; none: GET, POST and HEAD.
    pub allowed_methods: Vec<String>,
    /// With which headers, `*`: all; none: accept, content-type and x-requested-with.
    pub allowed_headers: Vec<String>,
    /// Which headers of an answer they see, besides those that everybody sees.
    pub exposed_headers: Vec<String>,
    /// Whether a browser may send along what it knows of a user.
    pub allow_credentials: bool,
    /// For how long a browser may remember a preflight; zero: as it likes.
    pub max_age: Duration,
}

/// Where the certificate is, with those that vouch for it, and its key; both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for RestConfig {
    fn default() -> Self {
        let mut listen = Multiaddr::empty();
        listen.push(Protocol::Ip4([127, 0, 0, 1].into()));
        listen.push(Protocol::Tcp(9094));
        Self {
            listen: vec![listen],
            read_timeout: None,
            read_header_timeout: Some(Duration::from_secs(5)),
            write_timeout: None,
            idle_timeout: Some(Duration::from_secs(120)),
            start_timeout: Duration::from_secs(30),
            max_header_bytes: 4096,
            tls: None,
            credentials: None,
            allowed_hosts: Vec::new(),
            cors: CorsRules {
                allowed_origins: vec!["*".to_owned()],
                allowed_methods: vec!["GET".to_owned()],
                exposed_headers: ["Content-Type", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"]
                    .map(str::to_owned)
                    .to_vec(),
                allow_credentials: true,
                ..CorsRules::default()
            },
            log_file: None,
            headers: BTreeMap::new(),
            max_connections: 1024,
            max_connections_per_ip: 512,
            max_writes: 1024,
            max_upload_bytes: None,
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
