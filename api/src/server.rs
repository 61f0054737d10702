//! Accepts connections, serves them, and lets them end in peace.
//!
//! **Invariant:** at most `max_connections` connections are served; further ones wait in the listen queue.
//! **Invariant:** after [`ApiServer::stop`] no connection of this server is left.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::cluster::ClusterService;
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::Multiaddr;
use http::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::RestConfig;
use crate::connection::{Exchange, GuardedSocket, OutgoingBody, Patience};
use crate::error::ApiError;
use crate::listener::{Listener, Socket};
use crate::rest::{self, Rest};
use crate::tls;

/// What a connection reads ahead, and may have unwritten.
const CONNECTION_BUFFER: usize = 64 * 1024;
/// How long to wait when the system has no socket left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running REST API.
#[derive(Debug)]
pub struct ApiServer {
    addresses: Vec<Multiaddr>,
    shared: Arc<Shared>,
}

/// What the accept loops and the connections have in common.
#[derive(Debug)]
struct Shared {
    rest: Arc<Rest>,
    tls: Option<Arc<ServerConfig>>,
    tasks: TaskGroup,
    open: TaskTracker,
    slots: Arc<Semaphore>,
    patience: Patience,
    max_head: usize,
    /// Cancelled: accept nothing more, finish what was begun.
    draining: CancellationToken,
    /// Cancelled: drop what is left.
    cutting: CancellationToken,
}

/// The REST API with its addresses taken. Nobody is served yet: connections wait in the listen queue.
#[derive(Debug)]
pub struct BoundApi {
    config: RestConfig,
    headers: HeaderMap,
    tls: Option<Arc<ServerConfig>>,
    listeners: Vec<Listener>,
    addresses: Vec<Multiaddr>,
}

impl BoundApi {
    /// Serves `service` from now on.
    pub fn serve(self, service: Arc<dyn ClusterService>, tasks: &TaskGroup) -> ApiServer {
        let config = self.config;
        let shared = Arc::new(Shared {
            rest: Arc::new(Rest::new(&config, self.headers, service, tasks)),
            tls: self.tls,
            tasks: tasks.clone(),
            open: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            patience: Patience { head: config.read_header_timeout, idle: config.idle_timeout },
            max_head: config.max_header_bytes.saturating_add(RestConfig::HEADER_SLACK),
            draining: tasks.stop_token().child_token(),
            cutting: CancellationToken::new(),
        });
        for listener in self.listeners {
            let shared_by_loop = Arc::clone(&shared);
            let accepting = shared.open.track_future(accept(listener, shared_by_loop));
            shared.tasks.spawn("rest listener", OnExit::Continue, accepting);
        }
        tracing::info!(addresses = ?self.addresses, "rest api listens");
        ApiServer { addresses: self.addresses, shared }
    }
}

impl ApiServer {
    /// Checks `config` and takes every address of it; none is kept if one of them fails.
    pub async fn bind(config: RestConfig) -> Result<BoundApi, ApiError> {
        if config.listen.is_empty() {
            return Err(ApiError::NoListener);
        }
        let headers = rest::checked_headers(&config.headers)?;
        let tls = config.tls.as_ref().map(tls::config).transpose()?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &config.listen {
            let (listener, taken) = Listener::bind(address).await?;
            listeners.push(listener);
            addresses.push(taken);
        }
        Ok(BoundApi { config, headers, tls, listeners, addresses })
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn local_addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Accepts nothing more, lets running requests and writes end for at most `grace`, then drops the connections
    /// that are left. Returns whether all ended in time. Writes are never dropped: one that is late goes on as a
    /// task of the group.
    pub async fn stop(self, grace: Duration) -> bool {
        self.shared.draining.cancel();
        self.shared.open.close();
        let ended = async {
            self.shared.open.wait().await;
            self.shared.rest.writes_done().await;
        };
        let in_time = tokio::time::timeout(grace, ended).await.is_ok();
        if !in_time {
            tracing::warn!("requests were cut at the end of the grace period");
            self.shared.cutting.cancel();
            self.shared.open.wait().await;
        }
        in_time
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) -> Result<(), Infallible> {
    let stop = shared.draining.clone();
    let on_loopback = listener.is_loopback();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            slot = Arc::clone(&shared.slots).acquire_owned() => slot,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { return Ok(()) };
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => {
                let serving = shared.open.track_future(serve(socket, on_loopback, Arc::clone(&shared)));
                shared.tasks.spawn("rest connection", OnExit::Continue, async move {
                    serving.await;
                    drop(slot);
                    Ok::<(), Infallible>(())
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Agrees on TLS, where it is spoken; nothing if the client cannot, is too slow, or the server stops.
async fn secured(socket: Socket, shared: &Shared) -> Option<Either<Box<TlsStream<Socket>>, Socket>> {
    let Some(tls) = &shared.tls else { return Some(Either::Right(socket)) };
    tokio::select! {
        agreed = tokio::time::timeout(shared.patience.head, TlsAcceptor::from(Arc::clone(tls)).accept(socket)) => match agreed {
            Ok(Ok(stream)) => Some(Either::Left(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection did not agree on TLS");
                None
            }
            Err(_) => None,
        },
        () = shared.draining.cancelled() => None,
    }
}

async fn serve(socket: Socket, on_loopback: bool, shared: Arc<Shared>) {
    let Some(socket) = secured(socket, &shared).await else { return };
    let exchange = Arc::new(Exchange::default());
    let guarded = GuardedSocket::new(socket, Arc::clone(&exchange), shared.patience);
    let answering = Arc::clone(&exchange);
    let rest = Arc::clone(&shared.rest);
    let service = service_fn(move |request| {
        let rest = Arc::clone(&rest);
        let exchange = Arc::clone(&answering);
        async move {
            exchange.begin();
            let response = rest.answer(request, on_loopback).await;
            Ok::<_, Infallible>(response.map(|body| OutgoingBody::new(body, exchange)))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None) // The guarded socket does that.
        .max_header_size(shared.max_head)
        .max_buf_size(CONNECTION_BUFFER.max(shared.max_head))
        .serve_connection(TokioIo::new(guarded), service);
    let mut connection = std::pin::pin!(connection);
    let mut asked_to_end = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection broke");
                }
                return;
            }
            () = shared.draining.cancelled(), if !asked_to_end => {
                if exchange.is_untouched() {
                    return;
                }
                asked_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
            () = shared.cutting.cancelled() => return,
        }
    }
}
