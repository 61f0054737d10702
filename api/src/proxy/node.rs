//! The way to the node: a connection for each request, so that a name is resolved anew for each, and nothing that a node
//! closed in the meantime is spoken to.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{BoxError, Multiaddr, Protocol};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::error::ApiError;
use crate::listener::ByteStream;

/// A node that does not accept a connection in this time is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a connection reads ahead, and may have unwritten.
const BUFFER: usize = 64 * 1024;

/// The node behind the proxy.
pub(super) struct Node {
    place: Place,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authority: HeaderValue,
    tasks: TaskGroup,
}

/// Where it is.
#[derive(Debug)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The node was not reached, or its answer did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    /// Nobody is there.
    #[error("cannot reach the IPFS node at {place}")]
    Unreachable {
        /// Where it should be.
        place: String,
        /// What the system said.
        #[source]
        cause: BoxError,
    },
    /// It broke off.
    #[error("the IPFS node at {place} broke off before it answered")]
    NoAnswer {
        /// Where it is.
        place: String,
        /// What happened.
        #[source]
        cause: hyper::Error,
    },
}

/// A connection to the node.
pub(super) struct Connection<B> {
    sender: http1::SendRequest<B>,
    place: String,
}

impl<B: Body + 'static> Connection<B> {
    /// Sends a request and waits for the head of its answer. Both bodies go on by themselves; who drops the answer ends it.
    pub(super) async fn send(mut self, request: Request<B>) -> Result<Response<Incoming>, NodeError> {
        let answer = self.sender.send_request(request).await;
        answer.map_err(|cause| NodeError::NoAnswer { place: self.place, cause })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Node {
    /// The node at `address`; connections are tasks of `tasks`.
    pub(super) fn new(address: &Multiaddr, https: bool, tasks: &TaskGroup) -> Result<Self, ApiError> {
        let unusable = || ApiError::NodeAddress { address: address.clone() };
        let (place, names_tls) = place(address).ok_or_else(unusable)?;
        let authority = match &place {
            Place::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        };
        let tls = match &place {
            Place::Tcp(host, _) if https || names_tls => Some((connector()?, server_name(host).ok_or_else(unusable)?)),
            Place::Tcp(..) | Place::Unix(_) => None,
        };
        let authority = HeaderValue::from_str(&authority).map_err(|_| unusable())?;
        Ok(Self { place, tls, authority, tasks: tasks.clone() })
    }

    /// What requests of our own call it.
    pub(super) fn authority(&self) -> HeaderValue {
        self.authority.clone()
    }

    /// Connects, for one request.
    pub(super) async fn reach<B>(&self) -> Result<Connection<B>, NodeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let unreachable = |cause: BoxError| NodeError::Unreachable { place: self.to_string(), cause };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let stream = connected.map_err(|late| unreachable(late.into()))?.map_err(|error| unreachable(error.into()))?;
        let no_answer = |cause| NodeError::NoAnswer { place: self.to_string(), cause };
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(no_answer)?;
        self.tasks.spawn("proxied request", OnExit::Continue, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the IPFS node broke");
            }
            Ok::<(), Infallible>(())
        });
        Ok(Connection { sender, place: self.to_string() })
    }

    async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        match &self.place {
            Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Place::Tcp(host, port) => {
                let socket = TcpStream::connect((host.as_str(), *port)).await?;
                socket.set_nodelay(true)?;
                match &self.tls {
                    Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), socket).await?)),
                    None => Ok(Box::new(socket)),
                }
            }
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(..) => f.write_str(self.authority.to_str().unwrap_or("?")),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Where an address leads, and whether it says that TLS is spoken there.
fn place(address: &Multiaddr) -> Option<(Place, bool)> {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let (host, rest) = parts.split_first()?;
    if let Protocol::Unix(path) = host {
        return matches!(rest, [] | [Protocol::Http]).then(|| (Place::Unix(PathBuf::from(path.as_ref())), false));
    }
    let name = if let Protocol::Ip4(ip) = host {
        ip.to_string()
    } else if let Protocol::Ip6(ip) = host {
        ip.to_string()
    } else if let Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) = host {
        name.to_string()
    } else {
        return None;
    };
    match rest {
        [Protocol::Tcp(port)] | [Protocol::Tcp(port), Protocol::Http] => Some((Place::Tcp(name, *port), false)),
        [Protocol::Tcp(port), Protocol::Https] | [Protocol::Tcp(port), Protocol::Tls, Protocol::Http] => {
            Some((Place::Tcp(name, *port), true))
        }
        _ => None,
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// Trusts whom the system trusts.
fn connector() -> Result<TlsConnector, ApiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|cause| ApiError::NodeTls { cause })?;
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str) -> Option<(String, bool)> {
        let node = Node::new(&cluster_types::parse_address(address).unwrap(), false, &TaskGroup::new()).ok()?;
        Some((node.to_string(), node.tls.is_some()))
    }

    #[test]
    fn an_address_says_where_the_node_is_and_whether_tls_is_spoken() {
        let plain = |text: &str| Some((text.to_owned(), false));
        assert_eq!(shown("/ip4/127.0.0.1/tcp/5001"), plain("127.0.0.1:5001"));
        assert_eq!(shown("/ip6/::1/tcp/5001/http"), plain("[::1]:5001"));
        assert_eq!(shown("/dns4/node/tcp/5001"), plain("node:5001"));
        assert_eq!(shown("/unix/run/ipfs/api.sock"), plain("/run/ipfs/api.sock"));
        assert_eq!(shown("/dns/node/tcp/443/https"), Some(("node:443".to_owned(), true)));
        for bad in ["/ip4/127.0.0.1/udp/5001", "/ip4/127.0.0.1", "/ip4/127.0.0.1/tcp/1/ws"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
