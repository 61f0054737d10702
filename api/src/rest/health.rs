//! Alive, and which version.

use cluster_types::VERSION;
use http::{Response, StatusCode};
use serde::Serialize;

use crate::reply::{self, Body, Reply};

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// `GET /health`: the process answers; nothing else is looked at.
pub(super) fn alive() -> Response<Body> {
    reply::empty(StatusCode::NO_CONTENT)
}

/// `GET /version`.
pub(super) fn version() -> Reply {
    reply::json(&Version { version: VERSION })
}

impl super::Rest {
    /// `GET /state`: where this peer is in the shared log.
    pub(super) async fn state(&self) -> Reply {
        reply::json(&self.service.state().await?)
    }
}
