//! Where Kubo's RPC is: the multiaddress of the configuration as a URL, or as a Unix socket.

use std::str::FromStr;

use cluster_types::{Multiaddr, Protocol};

/// A checked address of Kubo's RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `http://host:port`; a placeholder host when there is a socket.
    pub(super) base: String,
    /// The Unix socket to connect to instead.
    pub(super) unix_socket: Option<String>,
}

/// A multiaddress is not one that HTTP can be spoken to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is no address of an IPFS RPC: write /ip4/…/tcp/…, /ip6/…/tcp/…, /dns/…/tcp/… or /unix/…")]
pub(super) struct EndpointError {
    address: String,
}

impl Endpoint {
    /// Reads a multiaddress: a host and a TCP port, optionally with `/http` or `/https`; or a Unix socket.
    pub(super) fn parse(address: &Multiaddr) -> Result<Self, EndpointError> {
        let fail = || EndpointError { address: address.to_string() };
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        let (host, rest) = parts.split_first().ok_or_else(fail)?;
        if let Protocol::Unix(path) = host {
            let plain = matches!(rest, [] | [Protocol::Http]);
            let socket = Self { base: "http://unix".to_owned(), unix_socket: Some(path.to_string()) };
            return if plain { Ok(socket) } else { Err(fail()) };
        }
        let host = host_of(host).ok_or_else(fail)?;
        let (port, scheme) = match rest {
            [Protocol::Tcp(port)] | [Protocol::Tcp(port), Protocol::Http] => (port, "http"),
            [Protocol::Tcp(port), Protocol::Https] | [Protocol::Tcp(port), Protocol::Tls, Protocol::Http] => {
                (port, "https")
            }
            _ => return Err(fail()),
        };
        Ok(Self { base: format!("{scheme}://{host}:{port}"), unix_socket: None })
    }
}

/// Whether HTTP can be spoken to an address of this kind.
pub fn is_node_address(address: &Multiaddr) -> bool {
    Endpoint::parse(address).is_ok()
}

/// Reads a multiaddress as users write it: after `/unix`, everything is the path of a socket, slashes included, which
/// the multiaddress crate does not know.
pub fn parse_node_address(text: &str) -> Result<Multiaddr, <Multiaddr as FromStr>::Err> {
    match text.strip_prefix("/unix/") {
        Some(path) => Ok(Multiaddr::empty().with(Protocol::Unix(format!("/{path}").into()))),
        None => text.parse(),
    }
}

/// The host part of a URL.
fn host_of(part: &Protocol<'_>) -> Option<String> {
    if let Protocol::Ip4(ip) = part {
        return Some(ip.to_string());
    }
    if let Protocol::Ip6(ip) = part {
        return Some(format!("[{ip}]"));
    }
    if let Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) = part {
        return is_host_name(name).then(|| name.to_string());
    }
    None
}

/// A name that cannot change the meaning of the URL it is put into.
fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(address: &str) -> Option<String> {
        Endpoint::parse(&address.parse().unwrap()).ok().map(|endpoint| endpoint.base)
    }

    #[test]
    fn hosts_and_ports_become_urls() {
        assert_eq!(base("/ip4/127.0.0.1/tcp/5001").as_deref(), Some("http://127.0.0.1:5001"));
        assert_eq!(base("/ip6/::1/tcp/5001/http").as_deref(), Some("http://[::1]:5001"));
        assert_eq!(base("/dns4/ipfs.example/tcp/443/https").as_deref(), Some("https://ipfs.example:443"));
    }

    #[test]
    fn a_unix_socket_keeps_its_path() {
        let endpoint = Endpoint::parse(&parse_node_address("/unix/run/ipfs.sock").unwrap()).unwrap();
        assert_eq!(endpoint.unix_socket.as_deref(), Some("/run/ipfs.sock"));
    }

    #[test]
    fn what_http_cannot_reach_is_refused() {
        for address in ["/ip4/127.0.0.1/udp/5001", "/ip4/127.0.0.1", "/dns/a@b/tcp/1", "/memory/7"] {
            assert_eq!(base(address), None, "{address}");
        }
    }
}
