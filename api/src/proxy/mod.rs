//! The IPFS proxy: Kubo's RPC, with the pins of the cluster in the place of the node's own.
//!
//! Commands about pins and adds are answered by the cluster, in Kubo's shapes; everything else goes to the node and back as it
//! is. There is no authentication, as there is none in Kubo: who reaches the address may do everything. Pages in a browser are
//! kept to what the node allows them, see [`headers`].
//!
//! **Invariant:** a request that changes the pinset runs in its own task; a client that goes away does not stop it.

mod add;
mod block;
mod command;
mod config;
mod forward;
mod headers;
mod kubo;
mod list;
mod node;
mod pin;
mod piped;
mod repo;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::cluster::{ClusterService, ServiceResult};
use cluster_core::ports::Clock;
use cluster_core::task::TaskGroup;
use cluster_types::{API_VERSION, Multiaddr};
use http::header::{CONNECTION, HeaderName, HeaderValue, SERVER};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::access::{self, AccessLog, Entry};
use crate::connection::Patience;
use crate::error::ApiError;
use crate::gate::HasPlace;
use crate::late::Late;
use crate::listener::Arrival;
use crate::query::Query;
use crate::reply::Body;
use crate::rest::path;
use crate::server::{Desk, Server, Taken};
use crate::telemetry::ProxyTelemetry;
use crate::upload::Unread;
use crate::writes::Writes;
use command::Command;
use headers::{NodeHeaders, Stranger};
use kubo::{Answer, Refusal};
use node::Node;

pub use config::ProxyConfig;

/// The proxy with its addresses taken. Nobody is answered yet: connections wait in the listen queue.
#[derive(Debug)]
pub struct BoundProxy {
    config: ProxyConfig,
    names: Vec<HeaderName>,
    path: Uri,
    taken: Taken,
}

/// The running proxy.
#[derive(Debug)]
pub struct ProxyServer {
    proxy: Arc<Proxy>,
    server: Server,
}

impl ProxyServer {
    /// Checks `config` and takes every address of it; none is kept if one of them fails.
    pub async fn bind(config: ProxyConfig) -> Result<BoundProxy, ApiError> {
        if config.listen.is_empty() {
            return Err(ApiError::NoListener);
        }
        let names = config.extract_headers_extra.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?;
        let path = &config.extract_headers_path;
        let path = path.parse().map_err(|_| ApiError::HeadersPath { path: path.clone() })?;
        config.log_file.as_deref().map(access::open).transpose()?;
        let taken = Taken::bind(&config.listen).await?;
        Ok(BoundProxy { config, names, path, taken })
    }

    /// Answers what the cluster has to answer from now on; those who wait go on.
    pub fn begin(&self, service: Arc<dyn ClusterService>) {
        self.proxy.service.begin(service);
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn local_addresses(&self) -> &[Multiaddr] {
        self.server.addresses()
    }

    /// What it counts.
    pub fn telemetry(&self) -> &ProxyTelemetry {
        &self.proxy.telemetry
    }

    /// Accepts nothing more, lets running requests and writes end for at most `grace`, then drops the connections
    /// that are left. Returns whether all ended in time.
    pub async fn stop(self, grace: Duration) -> bool {
        self.server.stop(grace, self.proxy.writes.done()).await
    }
}

impl BoundProxy {
    /// Passes on from now on what goes to the node. Everything else waits for [`ProxyServer::begin`], but not longer than
    /// [`ProxyConfig::start_timeout`].
    pub fn open(self, tasks: &TaskGroup) -> Result<ProxyServer, ApiError> {
        let Self { config, names, path, taken } = self;
        let limits = config.limits();
        let node = Arc::new(Node::new(&config.node, config.node_https, tasks)?);
        let proxy = Arc::new(Proxy {
            service: Late::new(config.start_timeout, tasks.stop_token()),
            headers: NodeHeaders::new(Arc::clone(&node), path, names, config.extract_headers_ttl),
            node,
            writes: Writes::new(config.max_writes, tasks),
            patience: Patience::new(&limits),
            server: HeaderValue::from_str(&format!("ipfs-cluster/ipfsproxy/{API_VERSION}"))
                .expect("a version is made of letters, digits and signs"),
            telemetry: ProxyTelemetry::default(),
            clock: Arc::clone(&config.clock),
        });
        let log = AccessLog::new(config.log_file.clone(), AccessLog::ProgramOfProxy, tasks);
        let server = Server::open(taken, Desk::Proxy(Arc::clone(&proxy)), &limits, None, log, tasks);
        tracing::info!(addresses = ?server.addresses(), node = %proxy.node, "ipfs proxy listens");
        Ok(ProxyServer { proxy, server })
    }
}

/// Answers requests.
pub(crate) struct Proxy {
    service: Late,
    node: Arc<Node>,
    headers: NodeHeaders,
    writes: Writes,
    patience: Patience,
    server: HeaderValue,
    telemetry: ProxyTelemetry,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Answers one request, which came as `from` says; also what the access log is to say of it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        from: Arrival,
        has_place: HasPlace,
    ) -> (Response<Body>, Entry) {
        let (head, body) = request.into_parts();
        let mut body = Unread::new(body, self.patience);
        let mut response = match has_place {
            HasPlace::None => Refusal::with(StatusCode::SERVICE_UNAVAILABLE, "too many connections are open").answer(),
            HasPlace::Once | HasPlace::Ordinary => self.route(&head, &mut body).await,
        };
        if !response.status().is_success() {
            body.drain().await;
        }
        if has_place != HasPlace::Ordinary {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response, Entry::new(&head, from, None, self.clock.now()))
    }

    /// Lets the cluster or the node answer.
    async fn route(&self, head: &Parts, body: &mut Unread) -> Response<Body> {
        // What cannot be decoded is nothing of ours; the node says what is wrong with it.
        let decoded = path::decode(head.uri.path()).ok();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let find = |query: &Query| command::find(&head.method, decoded.as_deref()?, query);
        let response = match query {
            Ok(query) => match find(&query) {
                Some(command) => self.handle(command, &query, head, body).await,
                None => return self.pass_on(head, body).await,
            },
            // A pin must not get to the node alone because something in its query was not understood.
            Err(failure) if find(&Query::default()).is_some() => {
                Refusal::with(StatusCode::BAD_REQUEST, failure.message).answer()
            }
            Err(_unreadable) => return self.pass_on(head, body).await,
        };
        self.telemetry.handled.count(response.status());
        response
    }

    /// Lets the node answer.
    async fn pass_on(&self, head: &Parts, body: &mut Unread) -> Response<Body> {
        let passed = forward::pass(&self.node, head, body, self.patience.idle).await;
        let response = passed.unwrap_or_else(|refusal| refusal.answer());
        self.telemetry.passed_on.count(response.status());
        response
    }

    /// Answers a command for the cluster.
    async fn handle(&self, command: Command, query: &Query, head: &Parts, body: &mut Unread) -> Response<Body> {
        let headers = match self.headers.of_answer(head).await {
            Ok(headers) => headers,
            // Kubo's words.
            Err(Stranger) => return kubo::text(StatusCode::FORBIDDEN, "403 - Forbidden\n"),
        };
        let answer = self.dispatch(command, query, head, body).await;
        let mut response = answer.unwrap_or_else(|refusal| refusal.answer());
        for (name, value) in &headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response.headers_mut().insert(SERVER, self.server.clone());
        response
    }

    async fn dispatch(&self, command: Command, query: &Query, head: &Parts, body: &mut Unread) -> Answer {
        self.service.ready().await?;
        match command {
            Command::PinAdd(argument) => self.pin_add(self.pins(argument, query, head, body).await?, query).await,
            Command::PinRemove(argument) => self.pin_remove(self.pins(argument, query, head, body).await?).await,
            Command::PinList(argument) => self.pin_list(argument.as_deref(), query).await,
            Command::PinUpdate => self.pin_update(query).await,
            Command::Add => self.add(query, &head.headers, body).await,
            Command::RepoStat => self.repo_stat().await,
            Command::RepoGc => self.repo_gc(query).await,
            Command::BlockPut => self.block_put(head, body).await,
            Command::DagPut => self.dag_put(head, body).await,
        }
    }

    /// What is to be pinned or unpinned: at least one path.
    async fn pins(
        &self,
        argument: Option<String>,
        query: &Query,
        head: &Parts,
        body: &mut Unread,
    ) -> Result<Vec<String>, Refusal> {
        let mut arguments = command::arguments(argument.as_deref(), query);
        if argument.is_none() {
            // The command line puts the first of several lines into the query, the others into the body.
            arguments.extend(self.piped(&head.headers, body).await?);
        }
        if arguments.is_empty() {
            return Err(Refusal::with(StatusCode::BAD_REQUEST, "argument \"ipfs-path\" is required"));
        }
        arguments.iter().map(|argument| command::path(argument)).collect()
    }

    /// Carries out a write whether or not its client waits for the answer.
    async fn write<T, F, Fut>(&self, write: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn ClusterService>) -> Fut,
        Fut: Future<Output = ServiceResult<T>> + Send + 'static,
    {
        Ok(self.writes.run(&self.service, write).await?)
    }
}

fn header_name(name: &str) -> Result<HeaderName, ApiError> {
    name.parse().map_err(|_| ApiError::InvalidHeader { name: name.to_owned() })
}
