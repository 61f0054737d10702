//! The typed client of the REST API: the only way ctl talks to a peer.
//!
//! Several endpoints may be given: requests go to the first, on a connection failure to the next, each tried once.
//! What an API answered is never retried.

mod error;
mod methods;
mod stream;
mod upload;

use std::fmt;
use std::time::Duration;

use cluster_types::{Multiaddr, Protocol};

pub use error::{ApiFailure, ClientError};
pub use methods::{PinPath, Written};
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
    /// For a whole request; none when there is no limit.
    pub timeout: Option<Duration>,
}

impl ClientConfig {
    /// A client of the peer at `endpoint`, over plain HTTP.
    pub fn new(endpoint: Multiaddr) -> Self {
        Self { endpoints: vec![endpoint], https: false, insecure: false, basic_auth: None, timeout: None }
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
}

#[derive(Clone, Debug)]
struct Endpoint {
    base: String,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is sent yet.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        // Another part of the program may have chosen already; any choice will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http = Vec::new();
        for address in &config.endpoints {
            http.push(endpoint(address, &config)?);
        }
        if http.is_empty() {
            return Err(ClientError::Local { reason: "no API address was given".to_owned() });
        }
        Ok(Self { http, basic_auth: config.basic_auth })
    }
}

/// How long a connection may take: every endpoint gets its turn before a request's own limit ends it.
fn connect_timeout(config: &ClientConfig) -> Duration {
    let turns = u32::try_from(config.endpoints.len()).unwrap_or(u32::MAX).saturating_add(1);
    config.timeout.map_or(CONNECT_TIMEOUT, |timeout| CONNECT_TIMEOUT.min(timeout / turns))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other part of an address leads to an HTTP server")]
fn endpoint(address: &Multiaddr, config: &ClientConfig) -> Result<Endpoint, ClientError> {
    let unusable =
        |reason: &str| ClientError::Local { reason: format!("cannot use the API address {address}: {reason}") };
    let mut builder = reqwest::Client::builder()
        .danger_accept_invalid_certs(config.insecure)
        .connect_timeout(connect_timeout(config))
        .no_proxy();
    if let Some(timeout) = config.timeout {
        builder = builder.timeout(timeout);
    }
    let (mut host, mut port, mut https) = (None, None, config.https);
    for part in address.iter() {
        match part {
            Protocol::Ip4(ip) => host = Some(ip.to_string()),
            Protocol::Ip6(ip) => host = Some(format!("[{ip}]")),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => host = Some(name.to_string()),
            Protocol::Tcp(number) => port = Some(number),
            Protocol::Unix(path) => {
                builder = builder.unix_socket(std::path::PathBuf::from(format!("/{}", path.trim_start_matches('/'))));
                (host, port) = (Some("localhost".to_owned()), Some(80));
            }
            Protocol::Http => {}
            Protocol::Https => https = true,
            Protocol::P2p(_) | Protocol::Dnsaddr(_) => {
                return Err(unusable("HTTP over libp2p is not supported yet; give the address of the HTTP endpoint"));
            }
            _ => return Err(unusable("give it like /ip4/127.0.0.1/tcp/9094, /dns4/<name>/tcp/9094 or /unix/<path>")),
        }
    }
    let (Some(host), Some(port)) = (host, port) else {
        return Err(unusable("give it like /ip4/127.0.0.1/tcp/9094"));
    };
    let http = builder.build().map_err(|error| unusable(&cluster_types::ErrorChain(&error).to_string()))?;
    let scheme = if https { "https" } else { "http" };
    Ok(Endpoint { base: format!("{scheme}://{host}:{port}"), http })
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
    fn credentials_are_not_printed() {
        let basic_auth = Some(("ann".to_owned(), "swordfish".to_owned()));
        let config = ClientConfig { basic_auth, ..ClientConfig::new("/ip4/127.0.0.1/tcp/1".parse().unwrap()) };
        let printed = format!("{config:?}{:?}", Client::new(config.clone()).unwrap());
        assert!(!printed.contains("swordfish"), "{printed}");
    }
}
