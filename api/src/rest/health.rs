//! Alive, and which version.

use cluster_types::{ErrorClass, VERSION, WireError};
use http::StatusCode;
use serde::Serialize;

use crate::reply::{self, Reply};

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// `GET /version`.
pub(super) fn version() -> Reply {
    reply::json(&Version { version: VERSION })
}

impl super::Rest {
    /// `GET /health`: the process answers. Only what waiting does not cure makes it a 503: an orchestrator that takes
    /// it for a reason to restart the peer must not do so because others are away.
    pub(super) fn health(&self) -> Reply {
        match self.service.trouble() {
            None => Ok(reply::empty(StatusCode::NO_CONTENT)),
            Some(trouble) => Err(WireError::new(ErrorClass::Unavailable, trouble).into()),
        }
    }

    /// `GET /state`: where this peer is in the shared log.
    pub(super) async fn state(&self) -> Reply {
        reply::json(&self.service.state().await?)
    }
}
