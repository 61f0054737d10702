//! Alive, and which version.

use cluster_types::{API_VERSION, ErrorClass, WireError};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::gate::Gate;
use crate::reply::{self, Reply};

/// Whether a quorum is there.
const QUORUM: HeaderName = HeaderName::from_static("x-cluster-quorum");

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// `GET /version`.
pub(super) fn version() -> Reply {
    reply::json(&Version { version: API_VERSION })
}

impl Gate {
    /// `GET /health`: the process answers. Nobody is waited for; whether a quorum is there is said as far as it is known.
    /// Only what waiting does not cure makes it a 503: an orchestrator that takes it for a reason to restart the peer must
    /// not do so because others are away.
    pub(crate) fn health(&self) -> Reply {
        let service = self.service.get();
        if let Some(trouble) = service.and_then(|service| service.trouble()) {
            return Err(WireError::new(ErrorClass::Unavailable, trouble).into());
        }
        let mut response = reply::empty(StatusCode::NO_CONTENT);
        let has_quorum = service.is_some_and(|service| service.has_quorum());
        let quorum = if has_quorum { "true" } else { "false" };
        response.headers_mut().insert(QUORUM, HeaderValue::from_static(quorum));
        Ok(response)
    }
}

impl super::Rest {
    /// `GET /state`: where this peer is in the shared log.
    pub(super) async fn state(&self) -> Reply {
        reply::json(&self.gate.service.state().await?)
    }
}
