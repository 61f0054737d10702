//! Members that this peer does not trust: somebody else let them in.
//!
//! They stay members in the ordering, here too; they are told to the user, by a line in the log and by an alert.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_types::{Alert, BoxError, Metric, PeerId, Timestamp};
use parking_lot::Mutex;

use super::service::{Cluster, Standing};
use crate::consensus::Consensus;
use crate::task::OnExit;
use crate::trust::note_untrusted;

/// The name of the alerts.
const TRUST: &str = "trust";

/// Who they are, and since when that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Untrusted(Arc<Mutex<BTreeMap<PeerId, Timestamp>>>);

impl Untrusted {
    /// An alert for each, in the shape of a metric, since clients know that one.
    pub(super) fn alerts(&self) -> Vec<Alert> {
        self.0.lock().iter().map(|(peer, since)| alert(*peer, *since)).collect()
    }

    fn note(&self, members: Vec<PeerId>, is_trusted: impl Fn(&PeerId) -> bool, now: Timestamp) {
        for peer in note_untrusted(&mut self.0.lock(), members, is_trusted, now) {
            tracing::warn!(%peer, "a member is not in consensus.crdt.trusted_peers of this peer: another member let it in");
        }
    }
}

fn alert(peer: PeerId, since: Timestamp) -> Alert {
    let at = since.unix_nanos();
    let metric = Metric {
        name: TRUST.to_owned(),
        peer,
        value: "a member that this peer does not trust: another member let it in".to_owned(),
        expire: at,
        valid: false,
        weight: 0,
        partitionable: false,
        received_at: at,
    };
    Alert { metric, triggered_at: since }
}

impl Cluster {
    /// Begins to look for members that this peer does not trust. A follower has none.
    pub fn watch_trust(&self) {
        let Standing::Member { log, .. } = &self.parts.standing else { return };
        let (log, clock, untrusted) = (Arc::clone(log), Arc::clone(&self.parts.clock), self.untrusted.clone());
        let stop = self.parts.tasks.stop_token();
        self.parts.tasks.spawn("trust in members", OnExit::StopPeer, async move {
            let mut position = log.position();
            loop {
                let members = position.borrow_and_update().members.iter().map(|member| member.peer).collect();
                untrusted.note(members, |peer| log.trusts(peer), clock.now());
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    changed = position.changed() => {
                        changed.map_err(|_gone| BoxError::from("the membership is told no more"))?;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_that_is_not_trusted_is_an_alert_as_long_as_it_is_one() {
        let [friend, other] = [PeerId::random(), PeerId::random()];
        let (untrusted, now) = (Untrusted::default(), Timestamp::from_unix_nanos(5_000_000_000));
        untrusted.note(vec![friend, other], |peer| *peer == friend, now);
        let alerts = untrusted.alerts();
        let told: Vec<_> = alerts.iter().map(|alert| (alert.metric.name.as_str(), alert.metric.peer)).collect();
        assert_eq!(told, [("trust", other)]);
        assert_eq!(alerts[0].triggered_at, now);
        untrusted.note(vec![friend], |peer| *peer == friend, now);
        assert!(untrusted.alerts().is_empty());
    }
}
