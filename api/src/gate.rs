//! What every request passes before a handler sees it, whichever API it is for.
//!
//! Order, outermost first: configured headers, screen (pages that have no business here), authentication, CORS, and then
//! the [`Surface`] with its routes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cluster_core::cluster::{ClusterService, ServiceResult};
use cluster_core::ports::Clock;
use cluster_core::task::TaskGroup;
use cluster_types::{ErrorClass, WireError};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::access::Entry;
use crate::config::RestConfig;
use crate::connection::Patience;
use crate::error::Failure;
use crate::late::Late;
use crate::listener::Arrival;
use crate::reply::{self, Body, Reply};
use crate::rest::auth::{Caller, Users};
use crate::rest::cors::Cors;
use crate::rest::screen::Screen;
use crate::rest::{asks_for_health, path};
use crate::telemetry::ApiTelemetry;
use crate::upload::Unread;
use crate::writes::Writes;

/// The largest JSON body that is read.
const MAX_BODY: usize = 64 * 1024;

/// An API: its routes, and how it writes errors.
pub(crate) trait Surface: Sync {
    /// Finds the handler of a request and lets it answer.
    fn route(&self, head: &Parts, body: &mut Unread) -> impl Future<Output = Reply> + Send;
    /// The answer that reports a failure.
    fn failure(&self, failure: &Failure) -> Response<Body>;
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

/// What the APIs have in common: who may ask, and what outlives a request.
pub(crate) struct Gate {
    pub(crate) service: Late,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) writes: Writes,
    headers: HeaderMap,
    screen: Screen,
    cors: Cors,
    pub(crate) users: Option<Arc<Users>>,
    pub(crate) patience: Patience,
    telemetry: ApiTelemetry,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("writes", &self.writes).finish_non_exhaustive()
    }
}

impl Gate {
    /// Lets in `users`, or everyone, to what the service says that [`Gate::begin`] gets, `headers` added to each answer.
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
            telemetry: ApiTelemetry::default(),
        }
    }

    /// Everything can be answered from now on; until then only what needs no cluster.
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
        surface: &impl Surface,
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
            HasPlace::Once | HasPlace::Ordinary => self.admit(surface, &mut head, &mut body, from).await,
        };
        let mut response = reply.unwrap_or_else(|failure| surface.failure(&failure));
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
    async fn admit(&self, surface: &impl Surface, head: &mut Parts, body: &mut Unread, from: Arrival) -> Reply {
        self.screen.check(&head.method, &head.headers, from, &self.cors)?;
        if let Some(users) = &self.users
            && !is_open(head)
        {
            match users.check(&head.headers).await {
                Ok(caller) => drop(head.extensions.insert(caller)),
                Err(denied) => return Ok(denied.answer(|failure| surface.failure(failure))),
            }
        }
        if let Some(answer) = self.cors.preflight(&head.method, &head.headers) {
            return Ok(answer);
        }
        let mut response = surface.route(head, body).await.unwrap_or_else(|failure| surface.failure(&failure));
        self.cors.mark(&head.method, &head.headers, response.headers_mut());
        Ok(response)
    }

    /// Carries out a write whether or not its client waits for the answer.
    pub(crate) async fn detached<T, F, Fut>(&self, write: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn ClusterService>) -> Fut,
        Fut: Future<Output = ServiceResult<T>> + Send + 'static,
    {
        Ok(self.writes.run(&self.service, write).await?)
    }

    /// A body of JSON.
    pub(crate) async fn small_body(&self, unread: &mut Unread) -> Result<bytes::Bytes, Failure> {
        let too_large =
            || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BODY} bytes"));
        if unread.least_bytes() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let reading = Limited::new(unread.take(), MAX_BODY).collect();
        let until = unread.due().min(Instant::now() + self.patience.idle);
        match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Failure::bad_request("error decoding request body")),
            Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }
}

/// The answer that sends a request where its path belongs, if that is elsewhere.
pub(crate) fn redirect(path: &str, head: &Parts) -> Result<Option<Response<Body>>, Failure> {
    let Some((status, location)) = path::redirect(path, head.uri.query()) else { return Ok(None) };
    let location =
        HeaderValue::from_str(&location).map_err(|_| Failure::bad_request("the URL cannot be redirected"))?;
    let mut response = reply::empty(status);
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(LOCATION, location);
    Ok(Some(response))
}

/// Whether a request needs no password.
fn is_open(head: &Parts) -> bool {
    head.method == Method::OPTIONS || asks_for_health(&head.method, &head.uri)
}
