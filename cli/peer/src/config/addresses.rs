//! Values that another package takes only in part: what it would refuse later is refused here, with its key and place.

use std::collections::BTreeMap;

use cluster_api::is_listen_address;
use cluster_ipfs::kubo::is_node_address;
use cluster_types::{Multiaddr, Protocol};
use reqwest::header::{HeaderName, HeaderValue};

use super::document::Reader;
use super::error::ConfigError;

/// A list with at least one address.
fn some_addresses(reader: &Reader<'_>, key: &str) -> Result<Vec<Multiaddr>, ConfigError> {
    let addresses = reader.addresses(key)?;
    if addresses.is_empty() {
        return Err(reader.refuse(key, "give at least one multiaddress"));
    }
    Ok(addresses)
}

/// The TCP addresses of a list; it must have one.
pub(super) fn only_tcp(reader: &Reader<'_>, key: &str) -> Result<Vec<Multiaddr>, ConfigError> {
    let mut addresses = some_addresses(reader, key)?;
    addresses.retain(is_tcp);
    if addresses.is_empty() {
        return Err(reader
            .refuse(key, "give at least one address like /ip4/0.0.0.0/tcp/9096: names and other protocols do not do"));
    }
    Ok(addresses)
}

/// Whether a swarm can listen on an address: an IP address, a TCP port and nothing else.
pub(super) fn is_tcp(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)))
        && matches!(parts.next(), Some(Protocol::Tcp(_)))
        && parts.next().is_none()
}

/// Addresses of peers; each says whose it is, or nobody could be connected to by it.
pub(super) fn peer_addresses(reader: &Reader<'_>) -> Result<Vec<Multiaddr>, ConfigError> {
    let key = "peer_addresses";
    let addresses = reader.addresses(key)?;
    match addresses.iter().find(|address| !matches!(address.iter().last(), Some(Protocol::P2p(_)))) {
        Some(nobodys) => Err(reader.refuse(key, format!("{nobodys} must end in /p2p/<peer id>"))),
        None => Ok(addresses),
    }
}

/// Addresses that an HTTP API can listen on.
pub(super) fn api_addresses(reader: &Reader<'_>, key: &str) -> Result<Vec<Multiaddr>, ConfigError> {
    let addresses = some_addresses(reader, key)?;
    match addresses.iter().find(|address| !is_listen_address(address)) {
        Some(other) => {
            let reason = format!("cannot listen on {other}: write it like /ip4/127.0.0.1/tcp/9094 or /unix/<path>");
            Err(reader.refuse(key, reason))
        }
        None => Ok(addresses),
    }
}

/// The address of an IPFS node's RPC.
pub(super) fn node_address(reader: &Reader<'_>) -> Result<Multiaddr, ConfigError> {
    let key = "node_multiaddress";
    let address = reader.address(key)?;
    if is_node_address(&address) {
        return Ok(address);
    }
    Err(reader.refuse(key, "write it like /ip4/127.0.0.1/tcp/5001, /dns/<name>/tcp/5001 or /unix/<path>"))
}

/// Names of headers.
pub(super) fn header_names(reader: &Reader<'_>, key: &str) -> Result<Vec<String>, ConfigError> {
    let names = reader.texts(key)?;
    match names.iter().find(|name| HeaderName::try_from(*name).is_err()) {
        Some(name) => Err(reader.refuse(key, format!("{name:?} is not the name of a header"))),
        None => Ok(names),
    }
}

/// A path on a server, perhaps with a query.
pub(super) fn absolute_path(reader: &Reader<'_>, key: &str) -> Result<String, ConfigError> {
    let path = reader.text(key)?;
    let is_plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { Ok(path) } else { Err(reader.refuse(key, "write it like /api/v0/version")) }
}

/// Headers that can be sent.
pub(super) fn sendable_headers(reader: &Reader<'_>, key: &str) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let headers = reader.headers(key)?;
    for (name, values) in &headers {
        if HeaderName::try_from(name).is_err() {
            return Err(reader.refuse(key, format!("{name:?} is not the name of a header")));
        }
        if let Some(value) = values.iter().find(|value| HeaderValue::try_from(*value).is_err()) {
            return Err(reader.refuse(key, format!("{value:?} cannot be the value of the header {name}")));
        }
    }
    Ok(headers)
}
