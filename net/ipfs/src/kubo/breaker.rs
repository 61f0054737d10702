//! When to stop asking a node that does not answer.
//!
//! Pure: the caller brings the time. After more than [`TOLERATED_FAILURES`] connection failures in a row, one request
//! per [`PROBE_EVERY`] goes out until one succeeds; the others fail at once instead of waiting in a queue.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that change nothing: a node that restarts is soon back.
pub(super) const TOLERATED_FAILURES: u32 = 10;
/// How often a node that is down is asked.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Counts connection failures.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures_in_a_row: u32,
    last_admitted: Option<Instant>,
}

/// The node is taken for dead, and it is not yet time to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last {failures} attempts failed; the next one is made within a second")]
pub(super) struct Resting {
    failures: u32,
}

impl Breaker {
    /// Whether a request may go out now.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Resting> {
        let open = self.failures_in_a_row > TOLERATED_FAILURES;
        let recent = self.last_admitted.is_some_and(|last| now.saturating_duration_since(last) < PROBE_EVERY);
        if open && recent {
            return Err(Resting { failures: self.failures_in_a_row });
        }
        self.last_admitted = Some(now);
        Ok(())
    }

    /// The node answered, whatever it said.
    pub(super) fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// No connection, or it broke before an answer began.
    pub(super) fn failed(&mut self) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..=TOLERATED_FAILURES {
            assert_eq!(breaker.admit(now), Ok(()), "the limit is not reached yet");
            breaker.failed();
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_a_second_goes_out_while_the_node_is_down() {
        let start = Instant::now();
        let mut breaker = broken(start);
        assert_eq!(breaker.admit(start), Err(Resting { failures: TOLERATED_FAILURES + 1 }));
        assert_eq!(breaker.admit(start + PROBE_EVERY), Ok(()));
        assert!(breaker.admit(start + PROBE_EVERY + PROBE_EVERY / 2).is_err(), "that second is used up");
        breaker.failed();
        assert_eq!(breaker.admit(start + 2 * PROBE_EVERY), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_success_lets_everything_through_again() {
        let start = Instant::now();
        let mut breaker = broken(start);
        breaker.succeeded();
        assert_eq!(breaker.admit(start), Ok(()));
        breaker.failed();
        assert_eq!(breaker.admit(start), Ok(()), "counting starts anew");
    }
}
