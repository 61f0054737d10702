//! The REST API: which handler answers a request that was let in.
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
pub(crate) mod router;
mod schemas;
pub(crate) mod screen;
mod table;
mod token;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::fmt;

use cluster_core::cluster::{ClusterService, Committed, Listing, Reach};
use cluster_types::Cid;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::access::Entry;
use crate::config::RestConfig;
use crate::error::{ApiError, Failure};
use crate::gate::{self, Gate, HasPlace, Surface};
use crate::listener::Arrival;
use crate::query::Query;
use crate::reply::{self, Body, Reply};
use crate::upload::Unread;
#[cfg(any(test, fuzzing))]
pub(crate) use peers::added_peer;
use router::{Miss, Route};

/// How fresh a read is: the last log entry that was applied here before it.
const APPLIED: HeaderName = HeaderName::from_static("x-cluster-applied");
/// Where a write stands in the log.
const COMMIT: HeaderName = HeaderName::from_static("x-cluster-commit");

/// Answers requests.
pub(crate) struct Rest {
    pub(crate) gate: Gate,
    max_upload_bytes: Option<u64>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Surface for Rest {
    async fn route(&self, head: &Parts, body: &mut Unread) -> Reply {
        self.find_and_answer(head, body).await
    }

    fn failure(&self, failure: &Failure) -> Response<Body> {
        reply::failure(failure)
    }
}

impl Rest {
    /// Answers whom `gate` lets in.
    pub(crate) fn new(config: &RestConfig, gate: Gate) -> Self {
        Self { gate, max_upload_bytes: config.max_upload_bytes }
    }

    /// Answers one request, which came as `from` says; also what the access log is to say of it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        from: Arrival,
        has_place: HasPlace,
    ) -> (Response<Body>, Entry) {
        self.gate.answer(self, request, from, has_place).await
    }

    /// Redirects, or finds the handler and lets it answer.
    async fn find_and_answer(&self, head: &Parts, body: &mut Unread) -> Reply {
        let path = path::decode(head.uri.path())?;
        if let Some(elsewhere) = gate::redirect(&path, head)? {
            return Ok(elsewhere);
        }
        let route = match router::find(&head.method, &path) {
            Ok(route) => route,
            Err(Miss::Path) => return Err(Failure::new(StatusCode::NOT_FOUND, "not found")),
            Err(Miss::Method) => return Ok(wrong_method(&path)),
        };
        if let Some(refusal) = self.gate.refusal(self, head.extensions.get(), route.need()) {
            return Ok(refusal);
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        if !matches!(route, Route::Health | Route::Version | Route::OpenApi | Route::Docs) {
            self.gate.service.ready().await?;
        }
        if !route.is_read() {
            return self.dispatch(route, &query, head, body).await;
        }
        if wants_barrier(&query)? {
            self.gate.service.read_barrier().await?;
        }
        let applied = self.gate.service.applied_index();
        let mut response =
            self.dispatch(route, &query, head, body).await.unwrap_or_else(|failure| reply::failure(&failure));
        response.headers_mut().insert(APPLIED, HeaderValue::from(applied));
        Ok(response)
    }

    async fn dispatch(&self, route: Route<'_>, query: &Query, head: &Parts, body: &mut Unread) -> Reply {
        match route {
            Route::Id => self.id().await,
            Route::Version => health::version(),
            Route::Health => self.gate.health(),
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
            Route::GiveToken => self.gate.give_token(head.extensions.get(), query),
            Route::RevokeTokens => self.gate.revoke_tokens(head.extensions.get()).await,
            Route::OpenApi => Self::openapi(),
            Route::Docs => Self::docs(),
        }
    }

    /// Runs a listing that changes state to its end whether or not its client reads it.
    fn detached_listing<T: Send + 'static>(
        &self,
        start: impl FnOnce(&dyn ClusterService) -> Listing<T>,
    ) -> Result<Listing<T>, Failure> {
        Ok(self.gate.writes.listing(self.gate.service.as_ref(), start)?)
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
