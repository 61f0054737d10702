//! What a peer measures about itself, and when it says so.

use std::time::Duration;

use crate::watch;
use async_trait::async_trait;
use cluster_types::BoxError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Monitor;

/// Validity of metrics whose informer names none.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// The least time between two publications of one informer, whoever asks for more.
const LEAST_GAP: Duration = Duration::from_secs(2);
/// The first pause after a start; each further one doubles it, until the regular one is reached. A peer that starts has
/// no connections yet, and its first words reach nobody.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The least time an informer gets to measure.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// One measured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The metric's name.
    pub name: String,
    /// The value as text.
    pub value: String,
    /// The value as a number, greater is better.
    pub weight: i64,
    /// Whether peers with the same value form a group.
    pub partitionable: bool,
}

/// Measures something about this peer.
#[async_trait]
pub trait Informer: Send + Sync + 'static {
    /// What it is called in logs.
    fn name(&self) -> &'static str;
    /// How long a reading is valid; a new one is published at half of it.
    fn ttl(&self) -> Duration;
    /// Measures now. Nothing when there is nothing to say.
    async fn measure(&self) -> Result<Vec<Reading>, BoxError>;
}

/// Measures and publishes until the peer stops: at half the validity, at a quarter after a failure, more often
/// after a start, and soon when [`Monitor::announce`] asks.
pub(super) async fn publish_regularly(
    monitor: &Monitor,
    informer: &dyn Informer,
    mut announce: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let ttl = if informer.ttl().is_zero() { DEFAULT_TTL } else { informer.ttl() };
    let mut eager = FIRST_PAUSE;
    loop {
        let measured = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            measured = tokio::time::timeout(ttl.max(LEAST_PATIENCE), informer.measure()) => measured,
        };
        announce.mark_unchanged();
        let published = match measured {
            Ok(Ok(readings)) => monitor.publish(readings, ttl).await,
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err("measuring took too long".into()),
        };
        let wait = match published {
            Ok(()) => ttl / 2,
            Err(error) => {
                tracing::debug!(informer = informer.name(), error = %error, "metric not published");
                ttl / 4
            }
        };
        if !wait_for_turn(wait.min(eager), &mut announce, &stop).await {
            return;
        }
        eager = eager.saturating_mul(2);
    }
}

/// Waits for `wait`, less when an announcement is asked for; false when the peer stops.
async fn wait_for_turn(wait: Duration, announce: &mut watch::Receiver<u64>, stop: &CancellationToken) -> bool {
    let last = Instant::now();
    let mut until = last + wait;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            () = tokio::time::sleep_until(until) => return true,
            asked = announce.changed() => match asked {
                Ok(()) => until = until.min(last + LEAST_GAP),
                Err(_gone) => return false,
            },
        }
    }
}
