//! `GET /metrics`: prints the numbers of a registry for Prometheus, and owns none of them.
//!
//! The format is the text format 0.0.4, as in the original. There is no password, as in the original: the numbers tell how a
//! peer is doing and nothing of what it holds. Whoever listens on other addresses than loopback shows them to whoever reaches
//! these.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{Clock, SystemClock};
use cluster_core::task::TaskGroup;
use cluster_types::Multiaddr;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use crate::access::{AccessLog, Entry};
use crate::config::RestConfig;
use crate::error::ApiError;
use crate::gate::HasPlace;
use crate::listener::Arrival;
use crate::reply::{self, Body};
use crate::server::{Desk, Server, Taken};

/// The only path.
const PATH: &str = "/metrics";
/// The format, as Prometheus knows it.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// What everything else is.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// A head comes at once, or not at all.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that Prometheus waits for an answer by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection may be kept from one scrape to the next.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections at once: a few servers that scrape, twice over.
const CONNECTIONS: usize = 16;
/// Of these from one address.
const CONNECTIONS_PER_IP: usize = 8;

/// The endpoint with its address taken. Nobody is answered yet.
#[derive(Debug)]
pub struct BoundMetrics {
    taken: Taken,
}

/// The running endpoint.
#[derive(Debug)]
pub struct MetricsServer {
    scrape: Arc<Scrape>,
    server: Server,
}

impl MetricsServer {
    /// Takes `address`.
    pub async fn bind(address: Multiaddr) -> Result<BoundMetrics, ApiError> {
        Ok(BoundMetrics { taken: Taken::bind(&[address]).await? })
    }

    /// Shows `registry` from now on. Later ones are not taken.
    pub fn begin(&self, registry: Registry) {
        let _ = self.scrape.registry.set(Arc::new(registry));
    }

    /// Where it listens, with the port that the system chose.
    pub fn local_addresses(&self) -> &[Multiaddr] {
        self.server.addresses()
    }

    /// Accepts nothing more and ends what was begun, within `grace`; returns whether it was.
    pub async fn stop(self, grace: Duration) -> bool {
        self.server.stop(grace, std::future::ready(())).await
    }
}

impl BoundMetrics {
    /// Answers from now on, with 503 until [`MetricsServer::begin`].
    pub fn open(self, tasks: &TaskGroup) -> MetricsServer {
        let limits = RestConfig {
            read_timeout: Some(HEAD_TIMEOUT),
            read_header_timeout: Some(HEAD_TIMEOUT),
            write_timeout: Some(ANSWER_TIMEOUT),
            idle_timeout: Some(IDLE_TIMEOUT),
            max_connections: CONNECTIONS,
            max_connections_per_ip: CONNECTIONS_PER_IP,
            ..RestConfig::default()
        };
        let scrape = Arc::new(Scrape::default());
        // Several lines a minute that say nothing are left out.
        let server = Server::open(self.taken, Desk::Scrape(Arc::clone(&scrape)), &limits, None, AccessLog::None, tasks);
        tracing::info!(addresses = ?server.addresses(), "telemetry is served");
        MetricsServer { scrape, server }
    }
}

/// Answers those who ask for numbers.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    registry: OnceLock<Arc<Registry>>,
}

impl Scrape {
    /// Answers one request; also what belongs into an access log.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        from: Arrival,
        has_place: HasPlace,
    ) -> (Response<Body>, Entry) {
        let (head, _unread) = request.into_parts();
        let mut response = if has_place == HasPlace::None {
            text(StatusCode::SERVICE_UNAVAILABLE, "too many connections are open\n")
        } else if head.uri.path() != PATH {
            text(StatusCode::NOT_FOUND, "not found: there is /metrics and nothing else\n")
        } else if head.method != Method::GET {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        } else {
            self.numbers().await
        };
        if has_place != HasPlace::Ordinary {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response, Entry::new(&head, from, None, SystemClock.now()))
    }

    async fn numbers(&self) -> Response<Body> {
        let Some(registry) = self.registry.get() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this peer is still starting, or joining its cluster\n");
        };
        let registry = Arc::clone(registry);
        // Some numbers are read from the system.
        let written = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            encode_registry(&mut text, &registry).map(|()| text)
        });
        match written.await {
            Ok(Ok(numbers)) => {
                let mut response = text(StatusCode::OK, numbers);
                response.headers_mut().insert(CONTENT_TYPE, TEXT);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Ok(Err(_)) | Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the numbers cannot be written\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = reply::with_body(status, reply::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}
