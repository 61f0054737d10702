//! The REST API: what happens to every request, and which handler answers it.
//!
//! Order, outermost first: configured headers, screen (pages that have no business here), authentication,
//! CORS, redirects, router.
//!
//! **Invariant:** a request that changes state runs in its own task; a client that goes away does not stop it.

mod add;
mod allocations;
pub(crate) mod auth;
pub(crate) mod cors;
mod docs;
mod events;
mod health;
mod monitor;
mod openapi;
mod parameters;
pub(crate) mod path;
mod peers;
mod pins;
mod recover;
mod repo;
mod router;
mod schemas;
mod screen;
mod table;
mod token;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cluster_core::cluster::{ClusterService, Committed, Listing, Reach, ServiceResult};
use cluster_core::ports::Clock;
use cluster_core::task::TaskGroup;
use cluster_types::{Cid, ErrorClass, WireError};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::access::Entry;
use crate::config::RestConfig;
use crate::connection::Patience;
use crate::error::{ApiError, Failure};
use crate::late::Late;
use crate::listener::Arrival;
use crate::query::Query;
use crate::reply::{self, Body, Reply};
use crate::telemetry::ApiTelemetry;
use crate::upload::Unread;
use crate::writes::Writes;
use auth::{Caller, Users};
use cors::Cors;
#[cfg(any(test, fuzzing))]
pub(crate) use peers::added_peer;
use router::{Miss, Route};
use screen::Screen;

/// How fresh a read is: the last log entry that was applied here before it.
const APPLIED: HeaderName = HeaderName::from_static("x-cluster-applied");
/// Where a write stands in the log.
const COMMIT: HeaderName = HeaderName::from_static("x-cluster-commit");

/// Answers requests.
pub(crate) struct Rest {
    service: Late,
    clock: Arc<dyn Clock>,
    writes: Writes,
    headers: HeaderMap,
    screen: Screen,
    cors: Cors,
    users: Option<Arc<Users>>,
    patience: Patience,
    max_upload_bytes: Option<u64>,
    telemetry: ApiTelemetry,
}

/// Whether there is room for a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HasPlace {
    /// There is, for this request and further ones.
    Ordinary,
    /// There is for this request only.
    Once,
    /// There is not.
    None,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("writes", &self.writes).finish_non_exhaustive()
    }
}

impl Rest {
    /// Answers `users`, or everyone, with what the service says that [`Rest::begin`] gets, `headers` added to each answer.
    pub(crate) fn new(config: &RestConfig, headers: HeaderMap, users: Option<Users>, tasks: &TaskGroup) -> Self {
        Self {
            service: Late::new(config.start_timeout, tasks.stop_token()),
            clock: Arc::clone(&config.clock),
            writes: Writes::new(config.max_writes, tasks),
            headers,
            screen: Screen::new(config),
            cors: Cors::new(config),
            users: users.map(Arc::new),
            patience: Patience::new(config),
            max_upload_bytes: config.max_upload_bytes,
            telemetry: ApiTelemetry::default(),
        }
    }

    /// Answers everything from now on; until then only what needs no cluster.
    pub(crate) fn begin(&self, service: Arc<dyn ClusterService>) {
        self.service.begin(service);
    }

    /// What is counted of requests.
    pub(crate) fn telemetry(&self) -> &ApiTelemetry {
        &self.telemetry
    }

    /// Returns when no request that changes state is under way.
    pub(crate) async fn writes_done(&self) {
        self.writes.done().await;
    }

    /// Answers one request, which came as `from` says; also what the access log is to say of it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        from: Arrival,
        has_place: HasPlace,
    ) -> (Response<Body>, Entry) {
        let (mut head, body) = request.into_parts();
        let mut body = Unread::new(body, self.patience);
        let reply = match has_place {
            HasPlace::None => {
                Err(Failure::from(WireError::new(ErrorClass::Unavailable, "too many connections are open")))
            }
            HasPlace::Once | HasPlace::Ordinary => self.admit(&mut head, &mut body, from).await,
        };
        let mut response = reply.unwrap_or_else(|failure| reply::failure(&failure));
        if !response.status().is_success() {
            body.drain().await;
        }
        for (name, value) in &self.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        if has_place != HasPlace::Ordinary {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.telemetry.requests.count(response.status());
        let user = head.extensions.get::<Caller>().map(|caller| caller.name.as_ref());
        let entry = Entry::new(&head, from, user, self.clock.now());
        (response, entry)
    }

    /// What comes before the handler: nothing but the head of the request is looked at.
    async fn admit(&self, head: &mut Parts, body: &mut Unread, from: Arrival) -> Reply {
        self.screen.check(&head.method, &head.headers, from, &self.cors)?;
        if let Some(users) = &self.users
            && !is_open(head)
        {
            match users.check(&head.headers).await {
                Ok(caller) => drop(head.extensions.insert(caller)),
                Err(denied) => return Ok(denied.answer()),
            }
        }
        if let Some(answer) = self.cors.preflight(&head.method, &head.headers) {
            return Ok(answer);
        }
        let mut response = self.route(head, body).await.unwrap_or_else(|failure| reply::failure(&failure));
        self.cors.mark(&head.method, &head.headers, response.headers_mut());
        Ok(response)
    }

    /// Redirects, or finds the handler and lets it answer.
    async fn route(&self, head: &Parts, body: &mut Unread) -> Reply {
        let path = path::decode(head.uri.path())?;
        if let Some((status, location)) = path::redirect(&path, head.uri.query()) {
            let location =
                HeaderValue::from_str(&location).map_err(|_| Failure::bad_request("the URL cannot be redirected"))?;
            let mut response = reply::empty(status);
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().insert(LOCATION, location);
            return Ok(response);
        }
        let route = match router::find(&head.method, &path) {
            Ok(route) => route,
            Err(Miss::Path) => return Err(Failure::new(StatusCode::NOT_FOUND, "not found")),
            Err(Miss::Method) => return Ok(wrong_method(&path)),
        };
        if let Some(refusal) = self.refusal(head.extensions.get(), route.need()) {
            return Ok(refusal);
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        if !matches!(route, Route::Health | Route::Version | Route::OpenApi | Route::Docs) {
            self.service.ready().await?;
        }
        if !route.is_read() {
            return self.dispatch(route, &query, head, body).await;
        }
        if wants_barrier(&query)? {
            self.service.read_barrier().await?;
        }
        let applied = self.service.applied_index();
        let mut response =
            self.dispatch(route, &query, head, body).await.unwrap_or_else(|failure| reply::failure(&failure));
        response.headers_mut().insert(APPLIED, HeaderValue::from(applied));
        Ok(response)
    }

    async fn dispatch(&self, route: Route<'_>, query: &Query, head: &Parts, body: &mut Unread) -> Reply {
        match route {
            Route::Id => self.id().await,
            Route::Version => health::version(),
            Route::Health => self.health(),
            Route::State => self.state().await,
            Route::Events => self.events(query).await,
            Route::Peers => self.peers().await,
            Route::AddPeer => self.add_peer(body).await,
            Route::RemovePeer { peer } => self.remove_peer(peer).await,
            Route::Add => self.add(query, &head.headers, body).await,
            Route::Allocations => self.allocations(query).await,
            Route::Allocation { cid } => self.allocation(cid).await,
            Route::Statuses => self.statuses(query).await,
            Route::Status { cid } => self.status(cid, query).await,
            Route::Car { cid } => self.car(cid).await,
            Route::Pin { cid } => self.pin(cid, query).await,
            Route::Unpin { cid } => self.unpin(cid).await,
            Route::PinPath { path } => self.pin_path(path, query).await,
            Route::UnpinPath { path } => self.unpin_path(path).await,
            Route::Recover { cid } => self.recover(cid, query).await,
            Route::RecoverAll => self.recover_all(query).await,
            Route::CollectGarbage => self.collect_garbage(query).await,
            Route::ConnectGraph => self.connect_graph().await,
            Route::Bandwidth => self.bandwidth(),
            Route::Alerts => self.alerts().await,
            Route::MetricNames => self.metric_names().await,
            Route::Metrics { name } => self.metrics(name).await,
            Route::GiveToken => self.give_token(head.extensions.get(), query),
            Route::RevokeTokens => self.revoke_tokens(head.extensions.get()).await,
            Route::OpenApi => Self::openapi(),
            Route::Docs => Self::docs(),
        }
    }

    /// Carries out a write whether or not its client waits for the answer.
    async fn detached<T, F, Fut>(&self, write: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn ClusterService>) -> Fut,
        Fut: Future<Output = ServiceResult<T>> + Send + 'static,
    {
        Ok(self.writes.run(&self.service, write).await?)
    }

    /// Runs a listing that changes state to its end whether or not its client reads it.
    fn detached_listing<T: Send + 'static>(
        &self,
        start: impl FnOnce(&dyn ClusterService) -> Listing<T>,
    ) -> Result<Listing<T>, Failure> {
        Ok(self.writes.listing(self.service.as_ref(), start)?)
    }
}

/// Headers of the configuration as they can be sent.
pub(crate) fn checked_headers(configured: &BTreeMap<String, Vec<String>>) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, values) in configured {
        let invalid = || ApiError::InvalidHeader { name: name.clone() };
        let parsed: HeaderName = name.parse().map_err(|_| invalid())?;
        for value in values {
            headers.append(parsed.clone(), HeaderValue::from_str(value).map_err(|_| invalid())?);
        }
    }
    Ok(headers)
}

/// Whether a request needs no password.
fn is_open(head: &Parts) -> bool {
    head.method == Method::OPTIONS || asks_for_health(&head.method, &head.uri)
}

/// Whether a request only asks whether this peer lives.
pub(crate) fn asks_for_health(method: &Method, target: &Uri) -> bool {
    method == Method::GET && target.path() == "/health"
}

/// 405; the body stays empty, as in the original.
fn wrong_method(path: &str) -> Response<Body> {
    let mut response = reply::empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().remove(CONTENT_TYPE);
    if let Ok(allowed) = HeaderValue::from_str(&router::allowed(path).join(", ")) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// Whether a read must see everything that was acknowledged before it.
fn wants_barrier(query: &Query) -> Result<bool, Failure> {
    match query.value("consistency") {
        None | Some("local") => Ok(false),
        Some("linearizable") => Ok(true),
        Some(_) => Err(Failure::bad_request("consistency must be local or linearizable")),
    }
}

/// Whom a question goes to; anything but `true` means everybody, as in the original.
fn reach(query: &Query) -> Reach {
    if query.value("local") == Some("true") { Reach::Local } else { Reach::Cluster }
}

fn parse_cid(text: &str) -> Result<Cid, Failure> {
    text.parse().map_err(|error| Failure::bad_request(format!("error decoding Cid: {error}")))
}

/// The answer to a write, and how it was accepted.
fn committed<T: serde::Serialize>(written: &Committed<T>) -> Reply {
    let mut response = reply::json(&written.value)?;
    let commit = HeaderValue::from_str(&written.commit.to_string());
    response.headers_mut().insert(COMMIT, commit.expect("a word, or two numbers and a hyphen, are a header's value"));
    Ok(response)
}
