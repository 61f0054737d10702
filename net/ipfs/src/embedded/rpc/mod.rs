//! Kubo's RPC over the embedded node, for programs that want to talk to "an IPFS node".
//!
//! The shapes, headers and errors are those of Kubo 0.42; what differs stands in `docs/compatibility.md`. A command that is
//! not here is answered as Kubo answers an unknown one.
//!
//! **Invariant:** nobody is asked for a password: it listens where only this machine's user, or who the configuration
//! names, can reach it, and pages shown by a browser are refused as Kubo refuses them.
//! **Invariant:** content is streamed; what an answer must collect is bounded.

mod about;
mod add;
mod block;
mod call;
pub(super) mod codec;
mod dag;
mod get;
mod list;
mod path;
mod pin;
mod read;
mod refs;
mod reply;
mod repo;
mod swarm;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{ErrorChain, Multiaddr, Protocol};
use http::header::{ALLOW, HeaderMap, HeaderValue, ORIGIN, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::EmbeddedNode;
use call::Call;
use reply::{Answer, Body, Failure};

/// Where commands are.
const PREFIX: &str = "/api/v0/";
/// Connections served at a time; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept (no descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where the RPC is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcConfig {
    /// A unix socket that only this user may use; what is left of an old one is replaced.
    pub socket: PathBuf,
    /// TCP addresses.
    pub listen: Vec<Multiaddr>,
    /// What `repo stat` names as the place of the repository.
    pub repository: PathBuf,
}

/// The RPC cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("the IPFS node's RPC cannot listen on {place}")]
pub struct RpcError {
    place: String,
    #[source]
    cause: io::Error,
}

/// What the commands work with.
#[derive(Clone)]
struct Rpc {
    node: Arc<EmbeddedNode>,
    tasks: TaskGroup,
    repository: Arc<PathBuf>,
}

/// Serves the RPC of `node` until `tasks` end; says where it listens on TCP.
pub async fn serve(node: Arc<EmbeddedNode>, config: RpcConfig, tasks: &TaskGroup) -> Result<Vec<SocketAddr>, RpcError> {
    let rpc = Rpc { node, tasks: tasks.clone(), repository: Arc::new(config.repository) };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut bound = Vec::new();
    let mut listeners = Vec::new();
    for address in config.listen {
        let fail = |cause| RpcError { place: address.to_string(), cause };
        let place = socket_address(&address)
            .ok_or_else(|| fail(io::Error::new(io::ErrorKind::InvalidInput, "it must be /ip4 or /ip6 with /tcp")))?;
        let listener = TcpListener::bind(place).await.map_err(fail)?;
        bound.push(listener.local_addr().map_err(fail)?);
        listeners.push(listener);
    }
    let socket =
        bind_socket(&config.socket).map_err(|cause| RpcError { place: config.socket.display().to_string(), cause })?;
    for listener in listeners {
        let (rpc, room) = (rpc.clone(), Arc::clone(&room));
        tasks.spawn_until_stopped("ipfs rpc", async move {
            loop {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                rpc.take(accepted, &room).await;
            }
        });
    }
    tasks.spawn_until_stopped("ipfs rpc socket", async move {
        loop {
            let accepted = socket.accept().await.map(|(stream, _)| stream);
            rpc.take(accepted, &room).await;
        }
    });
    Ok(bound)
}

fn bind_socket(path: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let first = parts.next()?;
    let ip: IpAddr = if let Protocol::Ip4(ip) = first {
        ip.into()
    } else if let Protocol::Ip6(ip) = first {
        ip.into()
    } else {
        return None;
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None) => Some((ip, port).into()),
        _ => None,
    }
}

impl Rpc {
    async fn take<S>(&self, accepted: io::Result<S>, room: &Arc<Semaphore>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "the IPFS node's RPC cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let Ok(permit) = Arc::clone(room).acquire_owned().await else { return };
        let (rpc, stop) = (self.clone(), self.tasks.stop_token());
        self.tasks.spawn("ipfs rpc connection", OnExit::Continue, async move {
            let service = service_fn(|request| rpc.answer(request));
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // Clients go away as they like.
                end = serving => if let Err(error) = end {
                    tracing::debug!(error = %ErrorChain(&error), "a connection to the IPFS node's RPC broke");
                },
            }
            drop(permit);
            Ok::<(), Infallible>(())
        });
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let answered = match screen(request.method(), request.headers()) {
            Ok(()) => self.dispatch(request).await,
            Err(failure) => Err(failure),
        };
        Ok(answered.unwrap_or_else(Failure::into_response))
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(name) = path.strip_prefix(PREFIX).filter(|name| about::COMMANDS.contains(name)) else {
            return Err(Failure::plain(StatusCode::NOT_FOUND, "404 page not found"));
        };
        let call = Call::read(request, &self.tasks)?;
        match call.timeout()? {
            None => self.run(name, call).await,
            Some(limit) => match tokio::time::timeout(limit, self.run(name, call)).await {
                Ok(answer) => answer,
                Err(_elapsed) => Err(Failure::new("context deadline exceeded")),
            },
        }
    }

    async fn run(&self, name: &str, call: Call) -> Answer {
        match name {
            "add" => self.add(call).await,
            "block/get" => self.block_get(call).await,
            "block/put" => self.block_put(call).await,
            "block/rm" => self.block_rm(call).await,
            "block/stat" => self.block_stat(call).await,
            "cat" => self.cat(call).await,
            "commands" => Ok(about::commands()),
            "dag/export" => self.dag_export(call).await,
            "dag/get" => self.dag_get(call).await,
            "dag/import" => self.dag_import(call).await,
            "dag/put" => self.dag_put(call).await,
            "dag/resolve" => self.dag_resolve(call).await,
            "dag/stat" => self.dag_stat(call).await,
            "get" => self.get(call).await,
            "id" => self.id(call).await,
            "ls" => self.ls(call).await,
            "pin/add" => self.pin_add(call).await,
            "pin/ls" => self.pin_ls(call).await,
            "pin/rm" => self.pin_rm(call).await,
            "pin/update" => self.pin_update(call).await,
            "pin/verify" => self.pin_verify(call).await,
            "refs" => self.refs(call).await,
            "refs/local" => self.refs_local().await,
            "repo/gc" => self.repo_gc(call).await,
            "repo/stat" => self.repo_stat(call).await,
            "repo/verify" => self.repo_verify().await,
            "repo/version" => Ok(about::repo_version()),
            "resolve" => self.resolve(call).await,
            "swarm/addrs" => self.swarm_addrs().await,
            "swarm/addrs/listen" | "swarm/addrs/local" => self.swarm_own_addrs(call).await,
            "swarm/connect" => self.swarm_connect(call).await,
            "swarm/disconnect" => self.swarm_disconnect(call).await,
            "swarm/peers" => self.swarm_peers().await,
            "version" => Ok(about::version()),
            _ => Err(Failure::plain(StatusCode::NOT_FOUND, "404 page not found")),
        }
    }
}

/// Kubo's rules against pages in a browser: no page is allowed here.
fn screen(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    if *method == Method::OPTIONS {
        return Err(
            Failure::plain(StatusCode::NO_CONTENT, "").with_header(ALLOW, HeaderValue::from_static("OPTIONS, POST"))
        );
    }
    if *method != Method::POST {
        let failure = Failure::plain(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed");
        return Err(failure.with_header(ALLOW, HeaderValue::from_static("OPTIONS, POST")));
    }
    let present = |name| headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let electron = agent.windows(8).any(|part| part == b"Electron");
    if present(ORIGIN) || present(REFERER) || (agent.starts_with(b"Mozilla") && !electron) {
        return Err(Failure::plain(StatusCode::FORBIDDEN, "403 - Forbidden"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_browsers_are_refused_as_kubo_refuses_them() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            screen(&Method::POST, &headers.collect()).is_ok()
        };
        assert!(asked(&[]));
        assert!(asked(&[("user-agent", "curl/8")]));
        assert!(asked(&[("user-agent", "Mozilla/5.0 Electron/9")]));
        assert!(!asked(&[("user-agent", "Mozilla/5.0")]));
        assert!(!asked(&[("origin", "http://127.0.0.1:5001")]));
        assert!(!asked(&[("referer", "http://example.org/")]));
        assert!(screen(&Method::GET, &HeaderMap::new()).is_err());
    }
}
