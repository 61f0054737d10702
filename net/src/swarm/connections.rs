//! Which connections there are with whom, and since when.
//!
//! A peer that was killed behind a cut comes back over a new connection while its old one still counts: nobody has told of its
//! end. To gossip it is then the same peer as before, and is not told what is subscribed to here, so it would send nothing. Both
//! connections are closed then; the next one begins anew for all protocols.

use std::collections::HashMap;
use std::time::Duration;

use cluster_types::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// Connections that come within this time are twins: both peers dialled at once.
const TWINS: Duration = Duration::from_secs(3);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<PeerId, HashMap<ConnectionId, Instant>>);

impl Connections {
    /// Notes a new connection. Says whether the peer has an old one, which it cannot know of any more.
    pub(super) fn opened(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) -> bool {
        let connections = self.0.entry(peer).or_default();
        let begun_anew = connections.values().any(|since| now.saturating_duration_since(*since) > TWINS);
        connections.insert(connection, now);
        begun_anew
    }

    /// How many peers are connected.
    pub(super) fn peers(&self) -> usize {
        self.0.len()
    }

    /// Since when each peer has been connected.
    pub(super) fn since(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.0.iter().filter_map(|(peer, connections)| Some((*peer, *connections.values().min()?)))
    }

    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(connections) = self.0.get_mut(peer) else { return };
        connections.remove(&connection);
        if connections.is_empty() {
            self.0.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_old_connection_has_begun_anew_and_who_dials_back_has_not() {
        let (mut connections, peer, start) = (Connections::default(), PeerId::random(), Instant::now());
        let [first, twin, second, third] = [1, 2, 3, 4].map(ConnectionId::new_unchecked);
        assert!(!connections.opened(peer, first, start));
        assert!(!connections.opened(peer, twin, start + TWINS));
        assert!(!connections.opened(PeerId::random(), third, start + TWINS * 2), "another peer");
        assert!(connections.opened(peer, second, start + TWINS * 2));
        for connection in [first, twin, second] {
            connections.closed(&peer, connection);
        }
        assert!(!connections.opened(peer, third, start + TWINS * 3));
        connections.closed(&peer, third);
        assert_eq!(connections.0.len(), 1, "nothing is kept of who is gone");
    }
}
