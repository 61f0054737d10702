//! When to stop asking a node that does not answer. Pure: time and chance come in.

use std::time::Duration;

use tokio::time::Instant;

use super::retry::pause;

/// The pause before the first probe; each failed one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between probes: a node that is back should not wait long for work.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Closed while the node answers; once open, only probes reach the node, until one is answered.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    probe_at: Option<Instant>,
}

impl Breaker {
    /// Whether jobs may be started.
    pub(super) fn is_closed(&self) -> bool {
        self.probe_at.is_none()
    }

    /// When to probe, while open.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// A job found no node; further jobs of the same outage change nothing.
    pub(super) fn trip(&mut self, now: Instant, chance: f64) {
        if self.is_closed() {
            self.probe_failed(now, chance);
        }
    }

    /// The probe found no node either.
    pub(super) fn probe_failed(&mut self, now: Instant, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + pause(FIRST_PAUSE, self.failures, LONGEST_PAUSE, chance));
    }

    /// The node answered a probe: jobs may start again. Should they still find no node, the pauses go on growing.
    pub(super) fn close(&mut self) {
        self.probe_at = None;
    }

    /// The node has done its work: the outage is over.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn probes_come_ever_later_until_one_is_answered() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!(breaker.is_closed());
        breaker.trip(now, 0.5);
        breaker.trip(now, 0.5);
        assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(1)));
        breaker.probe_failed(now, 0.5);
        assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(2)));
        breaker.close();
        assert!(breaker.is_closed());
        breaker.trip(now, 0.5);
        assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(4)), "it answers, and does not work");
        breaker.close();
        breaker.succeed();
        breaker.trip(now, 0.5);
        assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(1)));
    }
}
