//! How a write becomes an entry of the log, or an eventual one where no quorum answers.

use std::time::Duration;

use cluster_types::{Commit, ErrorChain, WireError};
use tokio::time::Instant;

use super::engine::LogConsensus;
use super::exchange;
use crate::consensus::{ConsensusError, Outcome, Receipt, Request};
use crate::crdt::merge::{Eventual, RequestId};
use crate::rpc::{Call, Reply};

impl LogConsensus {
    /// A request for a pin says when it was made, so that whoever accepts it gives the pin the same time.
    pub(super) fn stamped(&self, mut request: Request) -> Request {
        if let Request::Pin(pin) = &mut request
            && pin.timestamp.is_zero()
        {
            pin.timestamp = self.clock.now();
        }
        request
    }

    /// Has a request ordered.
    pub(super) async fn order(&self, request: Request, timeout: Duration) -> Result<Receipt, ConsensusError> {
        self.order_as(self.request_ids.next(), request, timeout).await
    }

    async fn order_as(&self, id: RequestId, request: Request, timeout: Duration) -> Result<Receipt, ConsensusError> {
        let call = Call::Submit { id, request, until: None };
        let (reply, uncertain) = self.ask_leader(&call, timeout).await?;
        // A merge shows it as well: whoever writes next need not wait until it is time to ask again.
        *self.unanswered.lock() = None;
        let Reply::Receipt { term, index, outcome } = reply else {
            return Err(ConsensusError::OutcomeUnknown { after: timeout });
        };
        if uncertain && index == 0 {
            // Decided without the log, after an attempt that may be in it.
            return Err(ConsensusError::OutcomeUnknown { after: timeout });
        }
        self.wait_applied(index, timeout).await?;
        Ok(Receipt { commit: Commit::Log { term, index }, outcome })
    }

    /// Has writes that were accepted without a quorum merged, and returns the index once that is applied here; or says
    /// why the leader refused them.
    pub(super) async fn merge(
        &self,
        writes: Vec<Eventual>,
        timeout: Duration,
    ) -> Result<Result<u64, WireError>, ConsensusError> {
        let receipt = self.order(Request::Merge(writes), timeout).await?;
        match (receipt.commit, receipt.outcome) {
            (_, Outcome::Refused(refusal)) => Ok(Err(refusal)),
            (Commit::Log { index, .. }, _) => Ok(Ok(index)),
            (Commit::Eventual, _) => Err(ConsensusError::OutcomeUnknown { after: timeout }),
        }
    }

    /// Has a request ordered, or accepts it here when no quorum answers within `after`.
    pub(super) async fn order_or_accept(&self, request: Request, after: Duration) -> Result<Receipt, ConsensusError> {
        if self.waits_behind_others(&request, after).await? || self.is_unanswered(after) {
            return self.accept(request, None).await;
        }
        let id = self.request_ids.next();
        let error = match self.order_as(id, request.clone(), after).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let doubt = match error {
            ConsensusError::NoQuorum { .. } => None,
            ConsensusError::OutcomeUnknown { .. } => Some(error),
            ConsensusError::Overloaded
            | ConsensusError::Membership { .. }
            | ConsensusError::ReadOnly
            | ConsensusError::Unflushed { .. }
            | ConsensusError::Stopped { .. } => return Err(error),
        };
        self.nobody_answers();
        self.accept(request, doubt.map(|doubt| (id, doubt))).await
    }

    /// Accepts a write here. `doubt`: it was sent to a leader that did not answer, as this request. What is then refused,
    /// because there is nothing to unpin for example, may be so because that leader has carried it out: that stays unknown.
    pub(super) async fn accept(
        &self,
        request: Request,
        doubt: Option<(RequestId, ConsensusError)>,
    ) -> Result<Receipt, ConsensusError> {
        let attempt = doubt.as_ref().map(|(id, _)| *id);
        let accepted = self.outbox.accept(request, attempt, self.member_peers()).await;
        let outcome = accepted
            .map_err(|error| exchange::refused(&error))?
            .map_err(|unflushed| ConsensusError::Unflushed { reason: ErrorChain(&unflushed).to_string() })?;
        match (doubt, &outcome) {
            (Some((_, doubt)), Outcome::Refused(_)) => Err(doubt),
            _ => Ok(Receipt { commit: Commit::Eventual, outcome }),
        }
    }

    /// Whether earlier writes on the same pin wait still, after they had some time to be merged: the leader would decide
    /// without having seen them.
    async fn waits_behind_others(&self, request: &Request, patience: Duration) -> Result<bool, ConsensusError> {
        let Some(cid) = request.cid() else { return Ok(false) };
        let waits = || async { self.outbox.waits_on(cid).await.map_err(|error| exchange::refused(&error)) };
        let deadline = Instant::now() + patience;
        let mut applied = self.applied.clone();
        while waits().await? {
            if self.is_unanswered(patience) || self.silent_for().is_some() {
                return Ok(true);
            }
            if tokio::time::timeout_at(deadline, applied.changed()).await.is_err() {
                // That says nothing of the quorum: after a cut thousands may stand before them.
                return Ok(true);
            }
        }
        Ok(false)
    }
}
