//! Metrics, alerts, who is connected to whom, and what goes between them.

use super::Rest;
use crate::reply::{self, Reply};

impl Rest {
    /// `GET /monitor/metrics`.
    pub(super) async fn metric_names(&self) -> Reply {
        reply::json(&self.gate.service.metric_names().await?)
    }

    /// `GET /monitor/metrics/{name}`.
    pub(super) async fn metrics(&self, name: &str) -> Reply {
        reply::json(&self.gate.service.metrics(name).await?)
    }

    /// `GET /health/alerts`.
    pub(super) async fn alerts(&self) -> Reply {
        reply::json(&self.gate.service.alerts().await?)
    }

    /// `GET /health/graph`.
    pub(super) async fn connect_graph(&self) -> Reply {
        reply::json(&self.gate.service.connect_graph().await?)
    }

    /// `GET /health/bandwidth`.
    pub(super) fn bandwidth(&self) -> Reply {
        reply::json(&self.gate.service.bandwidth())
    }
}
