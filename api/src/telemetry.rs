//! What the REST API counts about itself.

use std::fmt;

use cluster_core::telemetry::Tally;
use http::StatusCode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// The classes of status codes, as a label.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of the REST API.
#[derive(Clone, Debug, Default)]
pub struct ApiTelemetry {
    /// Requests whose answer has begun.
    pub(crate) requests: ByClass,
}

impl ApiTelemetry {
    /// Shows all of it in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rest_requests_total",
            "Answered requests, by the class of their status",
            self.requests.clone(),
        );
    }
}

/// Counters of the IPFS proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxyTelemetry {
    /// Requests that were answered here.
    pub(crate) handled: ByClass,
    /// Requests that the node answered.
    pub(crate) passed_on: ByClass,
}

impl ProxyTelemetry {
    /// Shows all of it in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "proxy_requests_total",
            "Requests to the IPFS proxy that the cluster answered, by the class of their status",
            self.handled.clone(),
        );
        registry.register(
            "proxy_passed_on_total",
            "Requests to the IPFS proxy that went to the node, by the class of their status",
            self.passed_on.clone(),
        );
    }
}

/// A counter for each class of status codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByClass([Tally; CLASSES.len()]);

impl ByClass {
    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        // There are no other classes.
        if let Some(tally) = self.0.get(class) {
            tally.count();
        }
    }
}

impl EncodeMetric for ByClass {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (class, tally) in CLASSES.iter().zip(&self.0) {
            tally.encode(encoder.encode_family(&[("status", *class)])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_the_class_of_their_status() {
        let (telemetry, mut registry, mut text) = (ApiTelemetry::default(), Registry::default(), String::new());
        telemetry.register(&mut registry);
        for status in [200, 204, 404, 599, 999] {
            telemetry.requests.count(StatusCode::from_u16(status).unwrap());
        }
        prometheus_client::encoding::text::encode_registry(&mut text, &registry).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "# TYPE rest_requests_total counter",
                "rest_requests_total{status=\"1xx\"} 0",
                "rest_requests_total{status=\"2xx\"} 2",
                "rest_requests_total{status=\"3xx\"} 0",
                "rest_requests_total{status=\"4xx\"} 1",
                "rest_requests_total{status=\"5xx\"} 1",
            ]
        );
    }
}
