//! Which peers to stay connected to, and when to dial them again. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

/// Peers remembered at most.
const MAX_PEERS: usize = 1024;
/// Addresses remembered per peer, the newest ones.
const MAX_ADDRESSES: usize = 16;
/// The pause after a failed dial; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Wanted {
    addresses: Vec<Multiaddr>,
    due: Instant,
    pause: Duration,
}

/// The peers to stay connected to.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    peers: BTreeMap<PeerId, Wanted>,
}

impl Dialer {
    /// Remembers where a peer is. When there are too many, one goes that was not reached for long; if there is none, the
    /// answer is no.
    pub(super) fn remember(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) -> bool {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            let Some(lost) = self.peers.iter().find(|(_, wanted)| wanted.pause == LONGEST_PAUSE) else { return false };
            let lost = *lost.0;
            self.peers.remove(&lost);
        }
        let wanted =
            self.peers.entry(peer).or_insert_with(|| Wanted { addresses: Vec::new(), due: now, pause: FIRST_PAUSE });
        wanted.addresses.retain(|known| !addresses.contains(known));
        wanted.addresses.extend_from_slice(addresses);
        let extra = wanted.addresses.len().saturating_sub(MAX_ADDRESSES);
        wanted.addresses.drain(..extra);
        (wanted.due, wanted.pause) = (now, FIRST_PAUSE);
        true
    }

    /// No longer stays connected to a peer.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// The peers to dial now; each is due again after its pause, which grows until it connects.
    pub(super) fn due(
        &mut self,
        now: Instant,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, wanted) in &mut self.peers {
            if is_connected(peer) {
                (wanted.due, wanted.pause) = (now, FIRST_PAUSE);
            } else if wanted.due <= now {
                due.push((*peer, wanted.addresses.clone()));
                wanted.due = now + wanted.pause;
                wanted.pause = (wanted.pause * 2).min(LONGEST_PAUSE);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_peer_is_dialled_at_growing_intervals_until_it_is_back() {
        let mut dialer = Dialer::default();
        let (peer, mut now) = (PeerId::random(), Instant::now());
        assert!(dialer.remember(peer, &["/ip4/127.0.0.1/tcp/1".parse().unwrap()], now));
        let mut dials = 0;
        for _ in 0..600 {
            dials += dialer.due(now, |_| false).len();
            now += Duration::from_secs(1);
        }
        assert!((10..20).contains(&dials), "{dials} dials in ten minutes");
        assert!(dialer.due(now, |_| true).is_empty());
        assert_eq!(dialer.due(now, |_| false).len(), 1, "a fresh loss is answered at once");
    }

    #[test]
    fn memory_is_bounded() {
        let mut dialer = Dialer::default();
        let now = Instant::now();
        let peer = PeerId::random();
        for port in 1..100 {
            assert!(dialer.remember(peer, &[format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()], now));
        }
        assert_eq!(dialer.due(now, |_| false)[0].1.len(), MAX_ADDRESSES);
        for _ in 1..MAX_PEERS {
            assert!(dialer.remember(PeerId::random(), &[], now));
        }
        assert!(!dialer.remember(PeerId::random(), &[], now));
        // After some minutes all but one are known to be out of reach, and newcomers take their places.
        for minute in 0..10 {
            dialer.due(now + minute * LONGEST_PAUSE, |connected| *connected == peer);
        }
        for _ in 1..MAX_PEERS {
            assert!(dialer.remember(PeerId::random(), &[], now));
        }
        assert!(!dialer.remember(PeerId::random(), &[], now));
        assert!(dialer.peers.contains_key(&peer));
    }
}
