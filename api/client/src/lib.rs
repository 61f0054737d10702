//! The typed client of the REST API: the only way ctl talks to a peer.
//!
//! Several endpoints may be given: requests go to the first, on a connection failure to the next, each tried once.
//! What an API answered is never retried. Endpoints are sockets of TCP or unix ([`Client::new`]), and peers that are reached
//! by their id over libp2p ([`Client::connect`]).

mod bridges;
mod error;
mod methods;
mod names;
mod stream;
mod upload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_dial::Bridge;
use cluster_types::{Multiaddr, Protocol};
use reqwest::Certificate;

use names::Family;

pub use error::{ApiFailure, ClientError};
pub use methods::{Listing, PinPath, Written};
pub use stream::Items;
pub use upload::{AddRequest, Source};

/// How long a connection may take before the next endpoint gets its turn, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where and how to reach a peer.
#[derive(Clone)]
pub struct ClientConfig {
    /// REST endpoints as multiaddresses, tried in this order.
    pub endpoints: Vec<Multiaddr>,
    /// Whether to speak TLS.
    pub https: bool,
    /// Whether to accept any certificate.
    pub insecure: bool,
    /// User and password.
    pub basic_auth: Option<(String, String)>,
    /// A token of [`Client::token`], sent when there is no user.
    pub bearer: Option<String>,
    /// A file of certificates (PEM) that are trusted besides those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// For a whole request; none when there is no limit.
    pub timeout: Option<Duration>,
    /// The secret of the cluster in hexadecimal digits, for endpoints over libp2p; empty for those that need none.
    pub secret: String,
}

impl ClientConfig {
    /// A client of the peer at `endpoint`, over plain HTTP.
    pub fn new(endpoint: Multiaddr) -> Self {
        Self {
            endpoints: vec![endpoint],
            https: false,
            insecure: false,
            basic_auth: None,
            bearer: None,
            ca_file: None,
            timeout: None,
            secret: String::new(),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are not for logs.
        f.debug_struct("ClientConfig").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Speaks to a peer over its REST API.
#[derive(Clone)]
pub struct Client {
    http: Vec<Endpoint>,
    basic_auth: Option<(String, String)>,
    bearer: Option<String>,
    /// What requests over libp2p go through, as long as there is a client that uses it.
    bridges: Arc<Vec<Bridge>>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    base: String,
    /// What people know it by.
    name: String,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of endpoints some of which may be reached over libp2p: it connects to these, and does without those that
    /// it cannot reach as long as another endpoint is left.
    pub async fn connect(mut config: ClientConfig) -> Result<Self, ClientError> {
        let bridges = bridges::open(&mut config).await?;
        let addresses = config.endpoints.clone();
        let mut client = Self::new(config)?;
        for (endpoint, address) in client.http.iter_mut().zip(addresses) {
            if let Some(bridge) = bridges.iter().find(|bridge| bridge.address() == address) {
                endpoint.name = bridge.target().to_string();
            }
        }
        client.bridges = Arc::new(bridges);
        Ok(client)
    }

    /// A client; nothing is sent yet. Endpoints over libp2p are refused: they need a connection first.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        // Another part of the program may have chosen already; any choice will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let trusted = config.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let mut http = Vec::new();
        for address in &config.endpoints {
            http.push(endpoint(address, &config, &trusted)?);
        }
        if http.is_empty() {
            return Err(ClientError::Local { reason: "no API address was given".to_owned() });
        }
        Ok(Self { http, basic_auth: config.basic_auth, bearer: config.bearer, bridges: Arc::default() })
    }
}

/// How long a connection may take: every endpoint gets its turn before a request's own limit ends it.
fn connect_timeout(config: &ClientConfig) -> Duration {
    let turns = u32::try_from(config.endpoints.len()).unwrap_or(u32::MAX).saturating_add(1);
    config.timeout.map_or(CONNECT_TIMEOUT, |timeout| CONNECT_TIMEOUT.min(timeout / turns))
}

/// The certificates of a file.
fn certificates(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let unusable = |reason: String| ClientError::Local { reason: format!("reading {}: {reason}", path.display()) };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem);
    let found = found.map_err(|error| unusable(cluster_types::ErrorChain(&error).to_string()))?;
    if found.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(found)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other part of an address leads to an HTTP server")]
fn endpoint(address: &Multiaddr, config: &ClientConfig, trusted: &[Certificate]) -> Result<Endpoint, ClientError> {
    let unusable =
        |reason: &str| ClientError::Local { reason: format!("cannot use the API address {address}: {reason}") };
    let mut builder = reqwest::Client::builder()
        .danger_accept_invalid_certs(config.insecure)
        .connect_timeout(connect_timeout(config))
        .tls_certs_merge(trusted.iter().cloned())
        .no_proxy();
    if let Some(timeout) = config.timeout {
        builder = builder.timeout(timeout);
    }
    let (mut host, mut port, mut file, mut https) = (None, None, None, config.https);
    for part in address.iter() {
        match part {
            Protocol::Ip4(ip) => host = Some(ip.to_string()),
            Protocol::Ip6(ip) => host = Some(format!("[{ip}]")),
            Protocol::Dns(name) => host = Some(name.to_string()),
            Protocol::Dns4(name) => {
                builder = builder.dns_resolver(Family::V4);
                host = Some(name.to_string());
            }
            Protocol::Dns6(name) => {
                builder = builder.dns_resolver(Family::V6);
                host = Some(name.to_string());
            }
            Protocol::Tcp(number) => port = Some(number),
            Protocol::Unix(path) => {
                let path = format!("/{}", path.trim_start_matches('/'));
                builder = builder.unix_socket(PathBuf::from(&path));
                file = Some(path);
                (host, port) = (Some("localhost".to_owned()), Some(80));
            }
            Protocol::Http => {}
            Protocol::Https => https = true,
            Protocol::P2p(_) | Protocol::Dnsaddr(_) => {
                return Err(unusable("it leads to a peer over libp2p, which takes a connection first"));
            }
            _ => return Err(unusable("give it like /ip4/127.0.0.1/tcp/9094, /dns4/<name>/tcp/9094 or /unix/<path>")),
        }
    }
    let (Some(host), Some(port)) = (host, port) else {
        return Err(unusable("give it like /ip4/127.0.0.1/tcp/9094"));
    };
    let http = builder.build().map_err(|error| unusable(&cluster_types::ErrorChain(&error).to_string()))?;
    let scheme = if https { "https" } else { "http" };
    let base = format!("{scheme}://{host}:{port}");
    Ok(Endpoint { name: file.map_or_else(|| base.clone(), |path| format!("/unix{path}")), base, http })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_gets_its_turn_within_the_limit() {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut config = ClientConfig { endpoints: vec![address.clone(); 3], ..ClientConfig::new(address) };
        assert_eq!(connect_timeout(&config), CONNECT_TIMEOUT);
        config.timeout = Some(Duration::from_secs(8));
        assert_eq!(connect_timeout(&config), Duration::from_secs(2));
        config.timeout = Some(Duration::from_secs(1_000));
        assert_eq!(connect_timeout(&config), CONNECT_TIMEOUT);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ca.pem");
        let new = ClientConfig::new("/ip4/127.0.0.1/tcp/1".parse().unwrap());
        let config = ClientConfig { ca_file: Some(file.clone()), ..new };
        for content in [None, Some("nothing")] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let error = Client::new(config.clone()).unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let basic_auth = Some(("ann".to_owned(), "swordfish".to_owned()));
        let bearer = Some("swordfish".to_owned());
        let config = ClientConfig { basic_auth, bearer, ..ClientConfig::new("/ip4/127.0.0.1/tcp/1".parse().unwrap()) };
        let printed = format!("{config:?}{:?}", Client::new(config.clone()).unwrap());
        assert!(!printed.contains("swordfish"), "{printed}");
    }
}
