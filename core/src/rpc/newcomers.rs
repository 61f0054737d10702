//! How often peers that are no members may ask to become one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many calls may come at once: two for each of the peers of a large cluster that is being set up by a script.
const AT_ONCE: u32 = 64;
/// After that, one in this time. Whoever joins goes on asking for a minute.
const ONE_IN: Duration = Duration::from_millis(200);

/// Counts the calls of newcomers. A call costs an entry in the log of every member, so holders of the secret must not
/// be able to make many; whoever is refused is to come again.
#[derive(Debug)]
pub(super) struct Newcomers(Mutex<Room>);

#[derive(Debug)]
struct Room {
    left: u32,
    since: Instant,
}

impl Default for Newcomers {
    fn default() -> Self {
        Self(Mutex::new(Room { left: AT_ONCE, since: Instant::now() }))
    }
}

impl Newcomers {
    /// Whether there is room for one more call, which then is taken.
    pub(super) fn may_come(&self) -> bool {
        let mut room = self.0.lock();
        let waited = room.since.elapsed();
        let more = u32::try_from(waited.as_millis() / ONE_IN.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            room.left = room.left.saturating_add(more).min(AT_ONCE);
            let counted = if room.left == AT_ONCE { waited } else { ONE_IN * more };
            room.since += counted;
        }
        if room.left == 0 {
            return false;
        }
        room.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_may_come_at_once_but_not_for_long() {
        let newcomers = Newcomers::default();
        let come = |calls: u32| (0..calls).filter(|_| newcomers.may_come()).count();
        assert_eq!(come(1000), 64);
        tokio::time::advance(ONE_IN * 3).await;
        assert_eq!(come(1000), 3);
        tokio::time::advance(ONE_IN / 2).await;
        assert_eq!(come(1), 0);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(come(1000), 64);
    }
}
