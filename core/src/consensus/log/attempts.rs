//! How often and how long a leader is asked.

use std::time::Duration;

use cluster_types::{ErrorClass, WireError};
use tokio::time::Instant;

use super::engine::ATTEMPT_TIMEOUT;
use crate::consensus::sequencer::ProposeError;
use crate::consensus::{ConsensusError, Position};
use crate::watch;

/// Pause before asking again when no leader was known; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The attempts of one call to the leader: what went wrong so far, and when to give up.
pub(super) struct Attempts {
    started: Instant,
    timeout: Duration,
    pause: Duration,
    pub(super) uncertain: bool,
}

impl Attempts {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { started: Instant::now(), timeout, pause: MIN_PAUSE, uncertain: false }
    }

    pub(super) fn next_timeout(&self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed()).min(ATTEMPT_TIMEOUT).max(MIN_PAUSE)
    }

    /// When whoever asks gives up.
    pub(super) fn deadline(&self) -> Instant {
        self.started + self.timeout
    }

    /// Notes a failure; an error when it is time to give up or the answer was final.
    pub(super) fn failed(&mut self, error: &WireError) -> Result<(), ConsensusError> {
        match error.class {
            ErrorClass::Unavailable => {}
            ErrorClass::Unknown => self.uncertain = true,
            ErrorClass::Invalid
            | ErrorClass::Malformed
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Fatal
                if self.uncertain =>
            {
                return Err(ConsensusError::OutcomeUnknown { after: self.timeout });
            }
            class @ (ErrorClass::Invalid
            | ErrorClass::Malformed
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Fatal) => {
                return Err(ConsensusError::Membership { reason: error.message.clone(), class });
            }
        }
        if self.started.elapsed() < self.timeout {
            return Ok(());
        }
        if self.uncertain {
            Err(ConsensusError::OutcomeUnknown { after: self.timeout })
        } else if error.message == ProposeError::Overloaded.to_string() {
            Err(ConsensusError::Overloaded)
        } else {
            Err(ConsensusError::NoQuorum { reason: error.message.clone() })
        }
    }

    /// Waits a moment, or until there is another leader; an error when there will be none, since this node has stopped.
    pub(super) async fn pause(&mut self, mut position: watch::Receiver<Position>) -> Result<(), ConsensusError> {
        let before = position.borrow().leader;
        let changed = position.wait_for(|now| now.leader.is_some() && now.leader != before);
        if let Ok(Err(_closed)) = tokio::time::timeout(self.pause, changed).await {
            return Err(ConsensusError::Stopped { reason: "this peer has stopped".to_owned() });
        }
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}
