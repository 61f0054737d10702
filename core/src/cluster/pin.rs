//! Pin and unpin: fill in what the user left open, and have it ordered.

use cluster_types::{Cid, ErrorClass, Pin, PinOptions, PinType, WireError};

use super::service::{Cluster, from_consensus};
use super::{Committed, ServiceResult};
use crate::add::{AddHost, parts};
use crate::consensus::{Outcome, Receipt, Request};

impl Cluster {
    pub(super) async fn pin_cid(&self, cid: Cid, mut options: PinOptions) -> ServiceResult<Committed<Pin>> {
        let factor = options
            .replication(self.parts.settings.default_replication)
            .map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        (options.replication_factor_min, options.replication_factor_max) = factor.as_pair();
        let asked = options.clone();
        let mut committed = self.submit_pin(Pin::new(cid, options)).await?;
        echo_wishes(&mut committed.value, asked);
        Ok(committed)
    }

    /// Has a pin ordered as it is; allocations that are set are kept.
    pub(super) async fn submit_pin(&self, pin: Pin) -> ServiceResult<Committed<Pin>> {
        self.submit(Request::Pin(Box::new(pin))).await
    }

    /// Unpins; of a sharded pin the shards and the cluster DAG first, so that what is left after a failure can be unpinned
    /// again.
    pub(super) async fn unpin_cid(&self, cid: Cid) -> ServiceResult<Committed<Pin>> {
        let pin = self.pinned(cid).await?.filter(|pin| pin.kind == PinType::Meta);
        if let Some(cluster_dag) = pin.and_then(|pin| pin.reference) {
            for part in parts(self, cluster_dag).await? {
                self.unpin_part(part).await?;
            }
        }
        self.submit(Request::Unpin { cid }).await
    }

    pub(super) async fn submit(&self, request: Request) -> ServiceResult<Committed<Pin>> {
        let receipt = self.parts.consensus.submit(request).await.map_err(|error| from_consensus(&error))?;
        let Receipt { commit, outcome } = receipt;
        match outcome {
            Outcome::Pinned(pin) | Outcome::Unpinned(pin) => Ok(Committed { value: *pin, commit }),
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Unchanged => Err(WireError::new(ErrorClass::Unknown, "the leader gave no pin back")),
        }
    }

    /// The root CID a path leads to. A plain `/ipfs/<cid>` needs nobody's help.
    pub(super) async fn resolve_path(&self, path: &str) -> ServiceResult<Cid> {
        let path = path.trim_end_matches('/');
        let plain = path.strip_prefix("/ipfs/").or_else(|| path.strip_prefix("/ipld/"));
        if let Some(Ok(cid)) = plain.filter(|rest| !rest.contains('/')).map(str::parse) {
            return Ok(cid);
        }
        self.parts.ipfs.resolve(path).await.map_err(|error| WireError::from_error(error.class(), &error))
    }
}

/// Puts back what a user asked for and the state does not keep: who pins is told the peers that were asked for. A pin update copies
/// another pin, which holds no such wish.
fn echo_wishes(pin: &mut Pin, asked: PinOptions) {
    if asked.pin_update.is_none() {
        pin.options.user_allocations = asked.user_allocations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::fakes::{cid, pin_on};
    use cluster_types::PeerId;

    #[test]
    fn the_answer_to_a_pin_names_the_peers_that_were_asked_for() {
        let peer = PeerId::random();
        let asked = PinOptions { user_allocations: vec![peer], ..PinOptions::default() };
        let mut pin = pin_on(cid(1), &[peer]);
        echo_wishes(&mut pin, asked.clone());
        assert_eq!(pin.options.user_allocations, [peer]);
        let mut updated = pin_on(cid(2), &[peer]);
        echo_wishes(&mut updated, PinOptions { pin_update: Some(cid(1)), ..asked });
        assert!(updated.options.user_allocations.is_empty());
    }
}
