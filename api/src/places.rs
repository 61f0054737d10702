//! Who has a place: how many connections are served at once, in all and for one client.
//!
//! **Invariant:** some places are kept for asking whether this peer lives: who takes one of them for anything else waits for
//! an ordinary one, for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::listener::Client;

/// How many places are kept for asking after the peer's health.
const SPARE: usize = 8;
/// How long another request that came into such a place waits for an ordinary one.
const SPARE_WAIT: Duration = Duration::from_secs(5);

/// The places of a server.
#[derive(Debug)]
pub(crate) struct Places {
    ordinary: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<Client, usize>>>,
    most_per_client: usize,
}

/// The place of a connection.
#[derive(Debug)]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    is_spare: bool,
    ordinary: Arc<Semaphore>,
}

/// That a connection counts for its client.
#[derive(Debug)]
pub(crate) struct Counted {
    client: Client,
    taken: Arc<Mutex<HashMap<Client, usize>>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

impl Places {
    /// `most` ordinary places, of which one client may take `most_per_client` (0: all).
    pub(crate) fn new(most: usize, most_per_client: usize) -> Self {
        Self {
            ordinary: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            spare: Arc::new(Semaphore::new(SPARE)),
            taken: Arc::default(),
            most_per_client: if most_per_client == 0 { usize::MAX } else { most_per_client },
        }
    }

    /// A place for the next connection: an ordinary one if there is one.
    pub(crate) async fn next(&self) -> Option<Place> {
        let (permit, is_spare) = tokio::select! {
            biased;
            permit = Arc::clone(&self.ordinary).acquire_owned() => (permit, false),
            permit = Arc::clone(&self.spare).acquire_owned() => (permit, true),
        };
        // The semaphores are never closed.
        Some(Place { permit: permit.ok()?, is_spare, ordinary: Arc::clone(&self.ordinary) })
    }

    /// Counts a connection of `client`; nothing if it has as many as it may.
    pub(crate) fn count(&self, client: Client) -> Option<Counted> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= self.most_per_client {
            return None;
        }
        *count += 1;
        Some(Counted { client, taken: Arc::clone(&self.taken) })
    }
}

impl Place {
    /// Whether it is one of those that are kept.
    pub(crate) fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// Exchanges a kept place for an ordinary one. Returns whether this worked out in time.
    pub(crate) async fn become_ordinary(&mut self) -> bool {
        if self.is_spare
            && let Ok(Ok(permit)) = tokio::time::timeout(SPARE_WAIT, Arc::clone(&self.ordinary).acquire_owned()).await
        {
            self.permit = permit;
            self.is_spare = false;
        }
        !self.is_spare
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use cluster_types::PeerId;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kept_place_is_left_for_an_ordinary_one_or_not_at_all() {
        let places = Places::new(1, 0);
        let first = places.next().await.unwrap();
        assert!(!first.is_spare());
        let mut kept = Vec::new();
        for _ in 0..SPARE {
            kept.push(places.next().await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_secs(60), places.next()).await.is_err());
        assert!(!kept[0].become_ordinary().await);
        drop(first);
        assert!(kept[1].become_ordinary().await);
        assert!(places.next().await.unwrap().is_spare());
    }

    #[test]
    fn a_client_gets_back_what_it_gives_up() {
        let places = Places::new(9, 2);
        let (one, other) = (Client::Ip(IpAddr::from([1, 2, 3, 4])), Client::Peer(PeerId::random()));
        let first = places.count(one).unwrap();
        let _second = places.count(one).unwrap();
        assert!(places.count(one).is_none());
        let _third = places.count(other).unwrap();
        drop(first);
        let _fourth = places.count(one).unwrap();
        assert!(places.count(one).is_none());
    }
}
