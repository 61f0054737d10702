//! Accepts connections, serves them, and lets them end in peace.
//!
//! **Invariant:** at most `max_connections` connections are served, and a few more that ask only after the peer's health;
//! further ones wait in the listen queue.
//! **Invariant:** after [`ApiServer::stop`] no connection of this server is left.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::cluster::ClusterService;
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::Multiaddr;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{self, AccessLog, Entry};
use crate::config::RestConfig;
use crate::connection::{Exchange, GuardedSocket, OutgoingBody, Patience};
use crate::error::ApiError;
use crate::gate::{Gate, HasPlace};
use crate::listener::{Arrival, ByteStreams, Listener, Socket};
use crate::pinsvc::PinningApi;
use crate::places::{Place, Places};
use crate::proxy::Proxy;
use crate::reply::Body;
use crate::rest::auth::Users;
use crate::rest::{self, Rest};
use crate::scrape::Scrape;
use crate::telemetry::ApiTelemetry;
use crate::tls;

/// What a connection reads ahead, and may have unwritten.
const CONNECTION_BUFFER: usize = 64 * 1024;
/// The bytes of a short header line.
const LEAST_HEADER: usize = 8;
/// How long to wait when the system has no socket left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    addresses: Vec<Multiaddr>,
    shared: Arc<Shared>,
}

/// What the accept loops and the connections have in common.
#[derive(Debug)]
struct Shared {
    desk: Desk,
    log: Arc<AccessLog>,
    tls: Option<Arc<ServerConfig>>,
    tasks: TaskGroup,
    open: TaskTracker,
    places: Places,
    patience: Patience,
    max_head: usize,
    /// Cancelled: accept nothing more, finish what was begun.
    draining: CancellationToken,
    /// Cancelled: drop what is left.
    cutting: CancellationToken,
}

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) enum Desk {
    /// The REST API.
    Rest(Arc<Rest>),
    /// The IPFS proxy.
    Proxy(Arc<Proxy>),
    /// The pinning service.
    Pinning(Arc<PinningApi>),
    /// Those who ask for numbers.
    Scrape(Arc<Scrape>),
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>, from: Arrival, has_place: HasPlace) -> (Response<Body>, Entry) {
        match self {
            Self::Rest(rest) => rest.answer(request, from, has_place).await,
            Self::Proxy(proxy) => proxy.answer(request, from, has_place).await,
            Self::Pinning(pinning) => pinning.answer(request, from, has_place).await,
            Self::Scrape(scrape) => scrape.answer(request, from, has_place).await,
        }
    }
}

/// Addresses that are taken. Nobody is answered there yet: connections wait in the listen queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    listeners: Vec<Listener>,
    addresses: Vec<Multiaddr>,
}

impl Taken {
    /// Takes all of `addresses`, or none.
    pub(crate) async fn bind(addresses: &[Multiaddr]) -> Result<Self, ApiError> {
        let mut taken = Self::default();
        for address in addresses {
            let (listener, address) = Listener::bind(address).await?;
            taken.listeners.push(listener);
            taken.addresses.push(address);
        }
        Ok(taken)
    }
}

impl Server {
    /// Lets `desk` answer, within the limits of `config`.
    pub(crate) fn open(
        taken: Taken,
        desk: Desk,
        config: &RestConfig,
        tls: Option<Arc<ServerConfig>>,
        log: AccessLog,
        tasks: &TaskGroup,
    ) -> Self {
        let shared = Arc::new(Shared {
            desk,
            log: Arc::new(log),
            tls,
            tasks: tasks.clone(),
            open: TaskTracker::new(),
            places: Places::new(config.max_connections, config.max_connections_per_ip),
            patience: Patience::new(config),
            max_head: config.max_header_bytes.saturating_add(RestConfig::HEADER_SLACK),
            draining: tasks.stop_token().child_token(),
            cutting: CancellationToken::new(),
        });
        for listener in taken.listeners {
            let shared_by_loop = Arc::clone(&shared);
            let accepting = shared.open.track_future(accept(listener, shared_by_loop));
            shared.tasks.spawn("http listener", OnExit::Continue, accepting);
        }
        Self { addresses: taken.addresses, shared }
    }

    /// Where it listens, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Accepts nothing more, lets connections and `last` end for at most `grace`, then drops the connections that are left.
    /// Returns whether all ended in time.
    pub(crate) async fn stop(self, grace: Duration, last: impl Future<Output = ()>) -> bool {
        self.shared.draining.cancel();
        self.shared.open.close();
        let ended = async {
            self.shared.open.wait().await;
            last.await;
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

/// The running REST API.
#[derive(Debug)]
pub struct ApiServer {
    rest: Arc<Rest>,
    server: Server,
}

/// The REST API with its addresses taken. Nobody is answered yet: connections wait in the listen queue.
#[derive(Debug)]
pub struct BoundApi {
    config: RestConfig,
    headers: HeaderMap,
    users: Option<Users>,
    tls: Option<Arc<ServerConfig>>,
    taken: Taken,
}

impl BoundApi {
    /// Serves these streams too. Passwords are asked for on them as on sockets; TLS is not spoken.
    pub fn also_serve(&mut self, streams: ByteStreams) {
        self.taken.listeners.push(Listener::Streams(Mutex::new(streams)));
    }

    /// Serves `service` from now on.
    pub fn serve(self, service: Arc<dyn ClusterService>, tasks: &TaskGroup) -> ApiServer {
        let server = self.open(tasks);
        server.begin(service);
        server
    }

    /// Answers from now on what needs no cluster: that the peer lives, and its version. Everything else waits for
    /// [`ApiServer::begin`], but not longer than [`RestConfig::start_timeout`].
    pub fn open(self, tasks: &TaskGroup) -> ApiServer {
        let (gate, config, tls, taken) = self.into_gate(tasks);
        let rest = Arc::new(Rest::new(&config, gate));
        let log = AccessLog::new(config.log_file.clone(), AccessLog::Program, tasks);
        let server = Server::open(taken, Desk::Rest(Arc::clone(&rest)), &config, tls, log, tasks);
        tracing::info!(addresses = ?server.addresses(), "rest api listens");
        ApiServer { rest, server }
    }

    /// What lets requests in, and what is left of this.
    pub(crate) fn into_gate(self, tasks: &TaskGroup) -> (Gate, RestConfig, Option<Arc<ServerConfig>>, Taken) {
        let Self { config, headers, users, tls, taken } = self;
        (Gate::new(&config, headers, users, tasks), config, tls, taken)
    }
}

impl ApiServer {
    /// Checks `config` and takes every address of it; none is kept if one of them fails.
    pub async fn bind(config: RestConfig) -> Result<BoundApi, ApiError> {
        if config.listen.is_empty() {
            return Err(ApiError::NoListener);
        }
        let headers = rest::checked_headers(&config.headers)?;
        let users = config.credentials.as_ref().map(|credentials| Users::new(credentials, Arc::clone(&config.clock)));
        let users = users.transpose()?;
        rest::cors::check(&config.cors)?;
        config.log_file.as_deref().map(access::open).transpose()?;
        let tls = config.tls.as_ref().map(tls::config).transpose()?;
        let taken = Taken::bind(&config.listen).await?;
        Ok(BoundApi { config, headers, users, tls, taken })
    }

    /// Serves `service` from now on. Those who wait go on.
    pub fn begin(&self, service: Arc<dyn ClusterService>) {
        self.rest.gate.begin(service);
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn local_addresses(&self) -> &[Multiaddr] {
        self.server.addresses()
    }

    /// What it counts.
    pub fn telemetry(&self) -> &ApiTelemetry {
        self.rest.gate.telemetry()
    }

    /// Accepts nothing more, lets running requests and writes end for at most `grace`, then drops the connections
    /// that are left. Returns whether all ended in time. Writes are never dropped: one that is late goes on as a
    /// task of the group.
    pub async fn stop(self, grace: Duration) -> bool {
        self.server.stop(grace, self.rest.gate.writes_done()).await
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) -> Result<(), Infallible> {
    let stop = shared.draining.clone();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = admit(socket, from, &shared) => {}
            },
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Finds a place for a connection and serves it there. Not before it is there: a place that waits for a client is one that
/// others wait for.
async fn admit(socket: Socket, from: Arrival, shared: &Arc<Shared>) {
    let counted = from.client().map(|client| shared.places.count(client));
    if matches!(counted, Some(None)) {
        tracing::debug!(client = ?from.client(), "a client has too many connections");
        return;
    }
    let Some(place) = shared.places.next().await else { return };
    let serving = shared.open.track_future(serve(socket, from, place, Arc::clone(shared)));
    shared.tasks.spawn("http connection", OnExit::Continue, async move {
        serving.await;
        drop(counted);
        Ok::<(), Infallible>(())
    });
}

/// Agrees on TLS, where it is spoken; nothing if the client cannot, is too slow, or the server stops.
async fn secured(socket: Socket, from: Arrival, shared: &Shared) -> Option<Either<Box<TlsStream<Socket>>, Socket>> {
    let Some(tls) = shared.tls.as_ref().filter(|_| !from.is_encrypted) else { return Some(Either::Right(socket)) };
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

/// Whether a request has a place to be answered in: a kept one is for asking after the peer's health.
async fn has_place<B>(place: &Mutex<Place>, request: &Request<B>) -> HasPlace {
    let mut place = place.lock().await;
    if !place.is_spare() {
        HasPlace::Ordinary
    } else if rest::asks_for_health(request.method(), request.uri()) {
        HasPlace::Once
    } else if place.become_ordinary().await {
        HasPlace::Ordinary
    } else {
        HasPlace::None
    }
}

async fn serve(socket: Socket, from: Arrival, place: Place, shared: Arc<Shared>) {
    let Some(socket) = secured(socket, from, &shared).await else { return };
    let exchange = Arc::new(Exchange::default());
    let guarded = GuardedSocket::new(socket, Arc::clone(&exchange), shared.patience);
    let answering = Arc::clone(&exchange);
    let place = Arc::new(Mutex::new(place));
    let (desk, log) = (shared.desk.clone(), Arc::clone(&shared.log));
    let service = service_fn(move |request| {
        let desk = desk.clone();
        let (exchange, log) = (Arc::clone(&answering), Arc::clone(&log));
        let place = Arc::clone(&place);
        async move {
            exchange.begin();
            let has_place = has_place(&place, &request).await;
            let (answer, entry) = desk.answer(request, from, has_place).await;
            Ok::<_, Infallible>(OutgoingBody::within(answer, exchange, log, entry))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None) // The guarded socket does that.
        .max_header_size(shared.max_head)
        // The size of a head bounds them, as in the original; this many fit into it.
        .max_headers(shared.max_head / LEAST_HEADER)
        // Readers that know only the usual spelling of a header are spared.
        .title_case_headers(true)
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
