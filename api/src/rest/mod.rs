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
mod late;
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
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cluster_core::cluster::{ClusterService, Committed, Listing, Reach, ServiceResult};
use cluster_core::ports::Clock;
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{Cid, ErrorClass, WireError};
use futures::StreamExt;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::access::Entry;
use crate::config::RestConfig;
use crate::connection::Patience;
use crate::error::{ApiError, Failure};
use crate::listener::Arrival;
use crate::query::Query;
use crate::reply::{self, Body, Reply};
use crate::stream;
use crate::telemetry::ApiTelemetry;
use auth::{Caller, Users};
use cors::Cors;
use late::Late;
#[cfg(any(test, fuzzing))]
pub(crate) use peers::added_peer;
use router::{Miss, Route};
use screen::Screen;

/// How fresh a read is: the last log entry that was applied here before it.
const APPLIED: HeaderName = HeaderName::from_static("x-cluster-applied");
/// Where a write stands in the log.
const COMMIT: HeaderName = HeaderName::from_static("x-cluster-commit");
/// How many items of a listing that runs in its own task may wait for the client.
const LISTING_QUEUE: usize = 16;

/// Answers requests.
pub(crate) struct Rest {
    service: Late,
    clock: Arc<dyn Clock>,
    tasks: TaskGroup,
    writes: Arc<Semaphore>,
    max_writes: u32,
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

/// The body of a request until somebody reads it.
struct Unread {
    body: Option<Incoming>,
    /// When it must be there.
    due: Instant,
}

impl Unread {
    /// How many bytes it has at least.
    fn least_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    fn take(&mut self) -> Incoming {
        self.body.take().expect("a request has one handler, which takes its body once")
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("max_writes", &self.max_writes).finish_non_exhaustive()
    }
}

impl Rest {
    /// Answers `users`, or everyone, with what the service says that [`Rest::begin`] gets, `headers` added to each answer.
    pub(crate) fn new(config: &RestConfig, headers: HeaderMap, users: Option<Users>, tasks: &TaskGroup) -> Self {
        let max_writes = u32::try_from(config.max_writes.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            service: Late::new(config.start_timeout, tasks.stop_token()),
            clock: Arc::clone(&config.clock),
            tasks: tasks.clone(),
            writes: Arc::new(Semaphore::new(max_writes as usize)),
            max_writes,
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
        // An error would mean that the semaphore is closed, which it never is.
        let _ = self.writes.acquire_many(self.max_writes).await;
    }

    /// Answers one request, which came as `from` says; also what the access log is to say of it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        from: Arrival,
        has_place: HasPlace,
    ) -> (Response<Body>, Entry) {
        let (mut head, body) = request.into_parts();
        let mut body = Unread { body: Some(body), due: Instant::now() + self.patience.body };
        let reply = match has_place {
            HasPlace::None => {
                Err(Failure::from(WireError::new(ErrorClass::Unavailable, "too many connections are open")))
            }
            HasPlace::Once | HasPlace::Ordinary => self.admit(&mut head, &mut body, from).await,
        };
        let mut response = reply.unwrap_or_else(|failure| reply::failure(&failure));
        if let Some(unread) = body.body
            && !unread.is_end_stream()
            && !response.status().is_success()
        {
            add::drain(unread).await;
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

    /// Room for one more request that changes state.
    fn write_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.writes).try_acquire_owned().map_err(|_| {
            Failure::from(WireError::new(ErrorClass::Unavailable, "too many writes are under way, try again later"))
        })
    }

    /// Carries out a write whether or not its client waits for the answer.
    async fn detached<T, F, Fut>(&self, write: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn ClusterService>) -> Fut,
        Fut: Future<Output = ServiceResult<T>> + Send + 'static,
    {
        let permit = self.write_permit()?;
        let (answer, answered) = oneshot::channel();
        let write = write(Arc::clone(&*self.service));
        self.tasks.spawn("rest write", OnExit::Continue, async move {
            // Nobody may be listening any more; the write counts all the same.
            let _ = answer.send(write.await);
            drop(permit);
            Ok::<(), Infallible>(())
        });
        let lost = || WireError::new(ErrorClass::Unknown, "the write ended without an answer");
        Ok(answered.await.map_err(|_| lost())??)
    }

    /// Runs a listing that changes state to its end whether or not its client reads it.
    fn detached_listing<T: Send + 'static>(
        &self,
        start: impl FnOnce(&dyn ClusterService) -> Listing<T>,
    ) -> Result<Listing<T>, Failure> {
        let permit = self.write_permit()?;
        let mut listing = start(self.service.as_ref());
        let (items, received) = mpsc::channel(LISTING_QUEUE);
        let (end, ended) = oneshot::channel();
        self.tasks.spawn("rest write", OnExit::Continue, async move {
            while let Some(item) = listing.next().await {
                let _ = items.send(item).await;
            }
            let _ = end.send(());
            drop(permit);
            Ok::<(), Infallible>(())
        });
        Ok(stream::whole(received, ended).boxed())
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
