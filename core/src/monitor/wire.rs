//! Metrics on the wire: versioned JSON, checked before anything believes it.
//!
//! A message says how long its metrics are valid, not until when, so peers whose clocks differ do not think each
//! other dead. The receiver sets `expire` and `received_at` by its own clock.

use std::time::Duration;

use bytes::Bytes;
use cluster_types::{Metric, PeerId, Timestamp};
use serde::{Deserialize, Serialize};

use super::window::MAX_NAMES;
use crate::ports::Topic;

/// Version of the message.
const VERSION: u8 = 1;
/// The largest message that is looked at: one peer's whole budget, with room for the JSON around it.
const MAX_BYTES: usize = Topic::Metrics.max_message();
/// The longest name of a metric.
const MAX_NAME: usize = 256;
/// The longest value: a ping with many addresses.
const MAX_VALUE: usize = 32 * 1024;
/// The longest validity that is believed; whoever claims more has to say it again by then.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It cannot be read, or breaks a limit.
    Malformed,
    /// It speaks of another peer than its signer.
    Foreign,
}

#[derive(Serialize, Deserialize)]
struct Message {
    version: u8,
    ttl_ms: u64,
    metrics: Vec<Metric>,
}

/// The message that carries `metrics`, valid for `ttl`.
pub(super) fn encode(metrics: &[Metric], ttl: Duration) -> Result<Bytes, serde_json::Error> {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    serde_json::to_vec(&Message { version: VERSION, ttl_ms, metrics: metrics.to_vec() }).map(Bytes::from)
}

/// Reads a message signed by `from`.
pub(super) fn decode(data: &[u8], from: PeerId, now: Timestamp) -> Result<Vec<Metric>, Rejected> {
    if data.len() > MAX_BYTES {
        return Err(Rejected::Malformed);
    }
    let message: Message = serde_json::from_slice(data).map_err(|_error| Rejected::Malformed)?;
    let ttl = Duration::from_millis(message.ttl_ms).min(MAX_TTL);
    if message.version != VERSION || message.metrics.len() > MAX_NAMES {
        return Err(Rejected::Malformed);
    }
    let well_formed = |metric: &Metric| {
        metric.valid && !metric.name.is_empty() && metric.name.len() <= MAX_NAME && metric.value.len() <= MAX_VALUE
    };
    if !message.metrics.iter().all(well_formed) {
        return Err(Rejected::Malformed);
    }
    if message.metrics.iter().any(|metric| metric.peer != from) {
        return Err(Rejected::Foreign);
    }
    let expire = now.saturating_add(ttl).unix_nanos();
    let received_at = now.unix_nanos();
    Ok(message.metrics.into_iter().map(|metric| Metric { expire, received_at, ..metric }).collect())
}
