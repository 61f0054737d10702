//! The typed client of the REST API: the only way ctl and the demo talk to a peer.
//!
//! Several endpoints may be given: requests go to the first, on a connection failure to the next, each tried once.
//! What an API answered is never retried.

mod error;
mod methods;
mod stream;
mod upload;

use std::time::Duration;

use cluster_types::{Multiaddr, Protocol};

pub use error::{ApiFailure, ClientError};
pub use methods::PinPath;
pub use stream::Items;
pub use upload::{AddRequest, Source};

/// How long a connection may take before the next endpoint gets its turn, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where and how to reach a peer.
#[derive(Clone, Debug)]
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

/// Speaks to a peer over its REST API.
#[derive(Clone, Debug)]
pub struct Client {
    http: Vec<Endpoint>,
    basic_auth: Option<(String, String)>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    base: String,
    http: reqwest::Client,
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

#[expect(clippy::wildcard_enum_match_arm, reason = "no other part of an address leads to an HTTP server")]
fn endpoint(address: &Multiaddr, config: &ClientConfig) -> Result<Endpoint, ClientError> {
    let unusable =
        |reason: &str| ClientError::Local { reason: format!("cannot use the API address {address}: {reason}") };
    let mut builder = reqwest::Client::builder()
        .danger_accept_invalid_certs(config.insecure)
        .connect_timeout(CONNECT_TIMEOUT)
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
