//! What the REST server is told: where to listen, and its limits.

use std::collections::BTreeMap;
use std::fmt;
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

/// A text is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address to listen on: {reason}")]
pub struct ListenAddressError {
    text: String,
    reason: String,
}

/// Reads an address to listen on. Unlike the parser of multiaddresses it takes `/unix/<path>` with slashes in the path.
pub fn parse_listen_address(text: &str) -> Result<Multiaddr, ListenAddressError> {
    if let Some(path) = text.strip_prefix("/unix/") {
        let path = format!("/{}", path.trim_start_matches('/'));
        return Ok(Multiaddr::from(Protocol::Unix(path.into())));
    }
    text.parse::<Multiaddr>().map_err(|error| ListenAddressError { text: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_path_may_have_several_parts() {
        let address = parse_listen_address("/unix/run/cluster/api.sock").unwrap();
        assert_eq!(address.iter().next(), Some(Protocol::Unix("/run/cluster/api.sock".into())));
        assert_eq!(parse_listen_address("/ip4/127.0.0.1/tcp/0").unwrap().to_string(), "/ip4/127.0.0.1/tcp/0");
        assert!(parse_listen_address("localhost:9094").is_err());
    }
}
