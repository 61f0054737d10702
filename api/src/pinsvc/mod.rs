//! The pinning service: the IPFS Pinning Service API 1.0.0 (<https://ipfs.github.io/pinning-services-api-spec/>).
//!
//! A user sees and changes requests of his own and nobody else's. Where the specification and ipfs-cluster v1.1.6 differ,
//! the specification counts; a bare CID, which the original has for an id, stands for the newest request for it.
//!
//! **Invariant:** a request that changes the pinset runs in its own task; a client that goes away does not stop it.

mod filter;
mod list;
mod models;
mod status;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster_core::cluster::{ClusterService, PinningService, Requested};
use cluster_core::task::TaskGroup;
use cluster_types::{
    Cid, ErrorClass, GlobalPinInfo, Multiaddr, Pin, PinningRequest, RequestId, RequestNumber, WireError,
};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use crate::access::{AccessLog, Entry};
use crate::credentials::Scope;
use crate::error::Failure;
use crate::gate::{self, Gate, HasPlace, Surface};
use crate::listener::Arrival;
use crate::query::Query;
use crate::reply::{self, Body, Reply};
use crate::rest::auth::Caller;
use crate::rest::path;
use crate::rest::router::Need;
use crate::server::{BoundApi, Desk, Server};
use crate::upload::Unread;
use filter::Filter;
use models::PinStatus;

/// The words for every request that is not there.
const NO_REQUEST: &str = "there is no such request";

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    Pins,
    Pin(&'a str),
    Token,
    Health,
}

impl<'a> Place<'a> {
    fn find(path: &'a str) -> Option<Self> {
        match path {
            "/pins" => Some(Self::Pins),
            "/token" => Some(Self::Token),
            "/health" => Some(Self::Health),
            _ => path.strip_prefix("/pins/").filter(|id| !id.is_empty() && !id.contains('/')).map(Self::Pin),
        }
    }

    /// The methods it has.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Pins => &[Method::GET, Method::POST],
            Self::Pin(_) => &[Method::GET, Method::POST, Method::DELETE],
            Self::Token => &[Method::POST, Method::DELETE],
            Self::Health => &[Method::GET],
        }
    }

    fn need(self, method: &Method) -> Need {
        match self {
            Self::Health => Need::Nothing,
            Self::Token => Need::User,
            Self::Pins | Self::Pin(_) if method == Method::GET => Need::Scope(Scope::Read),
            Self::Pins | Self::Pin(_) => Need::Scope(Scope::Pin),
        }
    }
}

/// What an id leads to.
enum Found {
    /// A request.
    Request(Box<Requested>),
    /// A pin that no request keeps. Where everybody is the same user, as in the original, it is his by its CID.
    Unrequested(Box<Pin>),
}

/// Answers requests.
pub(crate) struct PinningApi {
    gate: Gate,
    service: OnceLock<Arc<dyn PinningService>>,
}

impl fmt::Debug for PinningApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinningApi").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Surface for PinningApi {
    async fn route(&self, head: &Parts, body: &mut Unread) -> Reply {
        let path = path::decode(head.uri.path())?;
        if let Some(elsewhere) = gate::redirect(&path, head)? {
            return Ok(elsewhere);
        }
        let place = Place::find(&path).ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "there is no such path"))?;
        if !place.methods().contains(&head.method) {
            return Ok(self.wrong_method(place));
        }
        if let Some(refusal) = self.gate.refusal(self, head.extensions.get(), place.need(&head.method)) {
            return Ok(refusal);
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        if place != Place::Health {
            self.gate.service.ready().await?;
        }
        let caller = head.extensions.get::<Caller>();
        let user = caller.map(|caller| caller.name.as_ref()).unwrap_or_default();
        match (place, head.method.as_str()) {
            (Place::Health, _) => self.gate.health(),
            (Place::Token, "DELETE") => self.gate.revoke_tokens(caller).await,
            (Place::Token, _) => self.gate.give_token(caller, &query),
            (Place::Pins, "GET") => self.list(user, &Filter::of(&query)?).await,
            (Place::Pins, _) => self.add(user, None, body).await,
            (Place::Pin(id), "GET") => self.get(user, id).await,
            (Place::Pin(id), "DELETE") => self.remove(user, id).await,
            (Place::Pin(id), _) => self.replace(user, id, body).await,
        }
    }

    fn failure(&self, failure: &Failure) -> Response<Body> {
        let mut response = reply::json(&models::Failed::from(failure)).unwrap_or_else(|_| reply::empty(failure.status));
        *response.status_mut() = failure.status;
        response
    }
}

impl PinningApi {
    fn new(gate: Gate) -> Self {
        Self { gate, service: OnceLock::new() }
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

    /// What makes and finds requests, once the gate's service is there.
    fn service(&self) -> Result<&Arc<dyn PinningService>, Failure> {
        let starting = || WireError::new(ErrorClass::Unavailable, "this peer is still starting: try again later");
        self.service.get().ok_or_else(|| starting().into())
    }

    fn wrong_method(&self, place: Place<'_>) -> Response<Body> {
        let methods: Vec<&str> = place.methods().iter().map(Method::as_str).collect();
        let message = format!("there is only {} here", methods.join(", "));
        let mut response = self.failure(&Failure::new(StatusCode::METHOD_NOT_ALLOWED, message));
        if let Ok(allowed) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(ALLOW, allowed);
        }
        response
    }

    /// `POST /pins`, and `POST /pins/{requestid}` with the request that the new one takes the place of.
    async fn add(&self, user: &str, instead_of: Option<RequestId>, body: &mut Unread) -> Reply {
        let wanted = models::wanted(&self.gate.small_body(body).await?, user)?;
        let service = Arc::clone(self.service()?);
        let made =
            self.gate.writes.run(&self.gate.service, |_| async move { service.request(wanted, instead_of).await });
        self.accepted(&made.await.map_err(refused)?.value).await
    }

    /// `GET /pins/{requestid}`.
    async fn get(&self, user: &str, id: &str) -> Reply {
        match self.find(user, id).await? {
            Found::Request(requested) => reply::json(&self.told(&requested).await),
            Found::Unrequested(pin) => {
                let requested = as_requested(*pin);
                let info = self.info(&requested.pin).await;
                reply::json(&PinStatus::new(
                    requested.pin.cid.to_string(),
                    &requested.request,
                    &requested.pin,
                    info.as_ref(),
                ))
            }
        }
    }

    /// `POST /pins/{requestid}`.
    async fn replace(&self, user: &str, id: &str, body: &mut Unread) -> Reply {
        match self.find(user, id).await? {
            Found::Request(former) => self.add(user, Some(former.id()), body).await,
            Found::Unrequested(former) => {
                let cid = former.cid;
                let wanted = models::wanted(&self.gate.small_body(body).await?, user)?;
                let (service, keeps) = (Arc::clone(self.service()?), wanted.cid == cid);
                let made = self.gate.writes.run(&self.gate.service, |cluster| async move {
                    let made = service.request(wanted, None).await?;
                    if !keeps {
                        cluster.unpin(cid).await?;
                    }
                    Ok(made)
                });
                self.accepted(&made.await.map_err(refused)?.value).await
            }
        }
    }

    /// `DELETE /pins/{requestid}`.
    async fn remove(&self, user: &str, id: &str) -> Reply {
        match self.find(user, id).await? {
            Found::Request(requested) => {
                let (service, user, id) = (Arc::clone(self.service()?), user.to_owned(), requested.id());
                let withdrawn = |_| async move { service.withdraw(&user, id).await };
                self.gate.writes.run(&self.gate.service, withdrawn).await.map_err(refused)?;
            }
            Found::Unrequested(pin) => {
                let unpinned = |cluster: Arc<dyn ClusterService>| async move { cluster.unpin(pin.cid).await };
                self.gate.writes.run(&self.gate.service, unpinned).await.map_err(refused)?;
            }
        }
        let mut response = reply::empty(StatusCode::ACCEPTED);
        response.headers_mut().remove(CONTENT_TYPE);
        Ok(response)
    }

    /// What an id of a user leads to: another user's leads nowhere.
    async fn find(&self, user: &str, id: &str) -> Result<Found, Failure> {
        let (cid, number) = match (id.parse::<RequestId>(), id.parse::<Cid>()) {
            (Ok(RequestId { number, cid }), _) => (cid, Some(number)),
            (Err(_), Ok(cid)) => (cid, None),
            // The specification has no 400 here: an id is whatever the service gave out, and this one it did not.
            (Err(error), Err(_)) => return Err(Failure::new(StatusCode::NOT_FOUND, error.to_string())),
        };
        let pin = self.service()?.requested(cid).await.map_err(refused)?;
        let own = pin.requests.iter().filter(|request| request.user == user);
        let request = match number {
            Some(number) => own.into_iter().find(|request| request.id == number),
            None => own.into_iter().min_by_key(|request| request.place()),
        };
        match request.cloned() {
            Some(request) => Ok(Found::Request(Box::new(Requested { request, pin }))),
            None if number.is_none() && self.shows_unrequested(&pin) => Ok(Found::Unrequested(Box::new(pin))),
            None => Err(Failure::new(StatusCode::NOT_FOUND, NO_REQUEST)),
        }
    }

    /// Whether a pin that no request keeps is shown under its CID.
    fn shows_unrequested(&self, pin: &Pin) -> bool {
        self.gate.users.is_none() && pin.requests.is_empty()
    }

    /// The answer to a request that was made.
    async fn accepted(&self, requested: &Requested) -> Reply {
        let mut response = reply::json(&self.told(requested).await.just_made())?;
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }

    /// What is said of one request.
    async fn told(&self, requested: &Requested) -> PinStatus {
        let Requested { request, pin } = requested;
        PinStatus::new(requested.id().to_string(), request, pin, self.info(pin).await.as_ref())
    }

    /// How a pin is doing, as far as that is known.
    async fn info(&self, pin: &Pin) -> Option<GlobalPinInfo> {
        let infos = self.service.get()?.statuses_of(std::slice::from_ref(pin)).await;
        infos.ok().and_then(|infos| infos.into_iter().next())
    }
}

/// A pin that no request keeps, as if one did: what the original shows.
fn as_requested(pin: Pin) -> Requested {
    let request = PinningRequest {
        id: RequestNumber([0; 16]),
        user: String::new(),
        name: pin.options.name.clone(),
        meta: pin.options.metadata.clone(),
        origins: pin.options.origins.clone(),
        created: pin.timestamp,
    };
    Requested { request, pin }
}

/// What the cluster refused, with the status that the specification has for it.
fn refused(error: WireError) -> Failure {
    let status = match error.class {
        ErrorClass::NotFound => return Failure::new(StatusCode::NOT_FOUND, NO_REQUEST),
        ErrorClass::Invalid => StatusCode::BAD_REQUEST,
        ErrorClass::Conflict => StatusCode::CONFLICT,
        ErrorClass::Unavailable | ErrorClass::Unknown | ErrorClass::Malformed | ErrorClass::Fatal => {
            return Failure::from(error);
        }
    };
    Failure::new(status, error.message)
}

/// The running pinning service.
#[derive(Debug)]
pub struct PinningServer {
    api: Arc<PinningApi>,
    server: Server,
}

impl BoundApi {
    /// Answers from now on, as a pinning service, what needs no cluster. Everything else waits for [`PinningServer::begin`],
    /// but not longer than [`RestConfig::start_timeout`](crate::RestConfig::start_timeout).
    pub fn open_pinning(self, tasks: &TaskGroup) -> PinningServer {
        let (gate, config, tls, taken) = self.into_gate(tasks);
        let api = Arc::new(PinningApi::new(gate));
        let log = AccessLog::new(config.log_file.clone(), AccessLog::ProgramOfPinning, tasks);
        let server = Server::open(taken, Desk::Pinning(Arc::clone(&api)), &config, tls, log, tasks);
        tracing::info!(addresses = ?server.addresses(), "pinning service listens");
        PinningServer { api, server }
    }
}

impl PinningServer {
    /// Serves `pinning`, and for what is no request of it `service`, from now on. Those who wait go on.
    pub fn begin(&self, service: Arc<dyn ClusterService>, pinning: Arc<dyn PinningService>) {
        // A second one would be of the same peer.
        let _ = self.api.service.set(pinning);
        self.api.gate.begin(service);
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn local_addresses(&self) -> &[Multiaddr] {
        self.server.addresses()
    }

    /// Shows what it counts in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Answered requests to the pinning service, by the class of their status";
        registry.register("pinning_requests_total", help, self.api.gate.telemetry().requests.clone());
    }

    /// Accepts nothing more, lets running requests and writes end for at most `grace`, then drops the connections
    /// that are left. Returns whether all ended in time.
    pub async fn stop(self, grace: Duration) -> bool {
        self.server.stop(grace, self.api.gate.writes_done()).await
    }
}
