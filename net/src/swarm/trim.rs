//! Who is disconnected when there are too many peers.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_types::PeerId;
use tokio::time::Instant;

use super::connections::Connections;
use crate::config::TrimRule;

/// How long too many peers are borne until the next look.
const PAUSE: Duration = Duration::from_secs(10);
/// The same with a short grace period: to look costs as much as there are connections.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// When to look again whether there are too many peers; never, while there are not.
#[derive(Debug)]
pub(super) struct Trim {
    rule: TrimRule,
    due: Option<Instant>,
}

impl Trim {
    pub(super) fn new(rule: TrimRule) -> Self {
        Self { rule, due: None }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notes that a peer was connected.
    pub(super) fn connected(&mut self, peers: usize, now: Instant) {
        if peers > self.rule.high_water {
            let pause = self.rule.grace_period.clamp(LEAST_PAUSE, PAUSE);
            self.due.get_or_insert(now + pause);
        }
    }

    /// The peers to disconnect now; nobody until it is time to look.
    pub(super) fn take(
        &mut self,
        connections: &Connections,
        remembered: &BTreeSet<PeerId>,
        now: Instant,
    ) -> Vec<PeerId> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = None;
        let peers = connections.peers();
        let surplus = too_many(connections.since(), remembered, self.rule, now);
        self.connected(peers - surplus.len(), now);
        surplus
    }
}

/// Those that have to go so that the low water is reached: the newest first, and neither remembered ones nor those that
/// came within the grace period. Nobody while the high water is not passed.
fn too_many(
    connected: impl Iterator<Item = (PeerId, Instant)>,
    remembered: &BTreeSet<PeerId>,
    rule: TrimRule,
    now: Instant,
) -> Vec<PeerId> {
    let connected: Vec<(PeerId, Instant)> = connected.collect();
    if connected.len() <= rule.high_water {
        return Vec::new();
    }
    let surplus = connected.len().saturating_sub(rule.low_water);
    let is_spared = |peer: &PeerId, since: Instant| {
        remembered.contains(peer) || now.saturating_duration_since(since) < rule.grace_period
    };
    let mut others: Vec<(Instant, PeerId)> = connected
        .into_iter()
        .filter(|(peer, since)| !is_spared(peer, *since))
        .map(|(peer, since)| (since, peer))
        .collect();
    others.sort_unstable_by(|one, other| other.cmp(one));
    others.into_iter().take(surplus).map(|(_, peer)| peer).collect()
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::ConnectionId;

    use super::*;

    const RULE: TrimRule = TrimRule { high_water: 6, low_water: 3, grace_period: Duration::from_secs(100) };

    /// Peers that connected at these seconds.
    fn connected(start: Instant, seconds: &[u64]) -> (Connections, Vec<PeerId>) {
        let mut connections = Connections::default();
        let peers: Vec<PeerId> = seconds.iter().map(|_| PeerId::random()).collect();
        for (number, (peer, at)) in peers.iter().zip(seconds).enumerate() {
            connections.opened(*peer, ConnectionId::new_unchecked(number), start + Duration::from_secs(*at));
        }
        (connections, peers)
    }

    #[test]
    fn the_newest_strangers_beyond_the_grace_period_go_until_the_low_water() {
        let start = Instant::now();
        let (connections, peers) = connected(start, &[0, 10, 20, 30, 40, 50, 150]);
        let remembered = BTreeSet::from([peers[5]]);
        let gone =
            |at: u64, rule: TrimRule| too_many(connections.since(), &remembered, rule, start + Duration::from_secs(at));
        assert_eq!(gone(200, RULE), [peers[4], peers[3], peers[2], peers[1]]);
        assert_eq!(gone(115, RULE), [peers[1], peers[0]], "others came within the grace period");
        assert!(gone(200, TrimRule { high_water: 7, ..RULE }).is_empty(), "they are not too many");
        assert_eq!(gone(300, TrimRule { low_water: 1, ..RULE }).len(), 6, "the remembered one stays in any case");
    }

    #[test]
    fn it_is_looked_at_only_while_there_are_too_many() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (connections, peers) = connected(start, &[0, 0, 0, 0, 0, 0, 95]);
        let mut trim = Trim::new(RULE);
        trim.connected(6, start);
        assert_eq!(trim.due(), None);
        trim.connected(7, start);
        assert_eq!(trim.due(), Some(at(10)));
        assert!(trim.take(&connections, &BTreeSet::new(), at(9)).is_empty());
        assert!(trim.take(&connections, &BTreeSet::new(), at(10)).is_empty(), "all are within the grace period");
        assert_eq!(trim.due(), Some(at(20)), "they are still too many");
        let gone = trim.take(&connections, &BTreeSet::new(), at(110));
        assert_eq!(gone.len(), 4);
        assert!(!gone.contains(&peers[6]));
        assert_eq!(trim.due(), None);
    }
}
