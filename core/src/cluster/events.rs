//! What lost when writes made apart were merged, for people and programs.

use std::sync::Arc;

use async_stream::try_stream;
use cluster_types::{Event, EventAuthor, EventParty, EventPlace};

use super::Listing;
use super::service::{Cluster, from_state};
use crate::crdt::merge::Party;
use crate::ports::{ConflictEvent, StateStore};

/// Events read at a time: a few MiB even if each of them holds two of the largest records.
const PAGE: usize = 16;

impl Cluster {
    pub(super) fn list_events(&self, before: Option<EventPlace>, limit: usize) -> Listing<Event> {
        listing(Arc::clone(&self.parts.state), before, limit)
    }
}

/// Events newest first, read page by page as they are taken.
fn listing(state: Arc<dyn StateStore>, before: Option<EventPlace>, limit: usize) -> Listing<Event> {
    Box::pin(try_stream! {
        let mut before = before.map(|EventPlace { index, place }| (index, place));
        let mut left = limit;
        while left > 0 {
            let page = state.conflicts(before, left.min(PAGE)).await.map_err(|error| from_state(&error))?;
            let Some(last) = page.last() else { break };
            before = Some((last.index, last.place));
            left = left.saturating_sub(page.len());
            for event in page {
                yield told(event);
            }
        }
    })
}

/// An event as it is shown.
fn told(event: ConflictEvent) -> Event {
    let ConflictEvent { index, place, time, conflict } = event;
    Event {
        cid: conflict.cid,
        rule: conflict.rule.as_str().to_owned(),
        stale: conflict.stale,
        time,
        index,
        place,
        message: conflict.to_string(),
        winner: party(conflict.winner),
        loser: party(conflict.loser),
    }
}

fn party(party: Party) -> EventParty {
    let Party { author, wish, time, record } = party;
    let author = author.map_or(EventAuthor::Log, EventAuthor::Peer);
    EventParty { author, wish: wish.as_str().to_owned(), time, pin: record }
}

#[cfg(test)]
mod tests {
    use cluster_types::{Cid, Pin, PinOptions, Timestamp};
    use futures::TryStreamExt;

    use super::*;
    use crate::crdt::merge::{Conflict, Rule, Wish};
    use crate::ports::Changes;
    use crate::testing::MemState;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn conflict_event(index: u64, place: u32) -> ConflictEvent {
        let cid: Cid = CID.parse().unwrap();
        let time = Timestamp::from_unix_seconds(1_800_000_000);
        let record = Some(Pin::new(cid, PinOptions { name: "kept".to_owned(), ..PinOptions::default() }));
        let winner = Party { author: None, wish: Wish::Pin, time, record };
        let loser =
            Party { author: Some(PEER.parse().unwrap()), wish: Wish::Unpin, time: Timestamp::ZERO, record: None };
        let conflict = Conflict { cid, winner, loser, rule: Rule::PinBeatsUnpin, stale: true };
        ConflictEvent { index, place, time, conflict }
    }

    async fn places(state: &Arc<MemState>, before: Option<EventPlace>, limit: usize) -> Vec<(u64, u32)> {
        let state = Arc::clone(state) as Arc<dyn StateStore>;
        let events: Vec<Event> = listing(state, before, limit).try_collect().await.unwrap();
        events.iter().map(|event| (event.index, event.place)).collect()
    }

    #[tokio::test]
    async fn events_are_listed_newest_first_over_the_edges_of_pages() {
        let state = Arc::new(MemState::new());
        let mut all: Vec<(u64, u32)> = (1..20).flat_map(|index| (0..3).map(move |place| (index, place))).collect();
        let conflicts = all.iter().map(|(index, place)| conflict_event(*index, *place)).collect();
        let changes = Changes { conflicts, ..Changes::default() };
        state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
        all.reverse();
        assert_eq!(places(&state, None, 1_000).await, all);
        assert_eq!(places(&state, None, PAGE + 1).await, all[..=PAGE]);
        let before = Some(EventPlace { index: 19, place: 1 });
        assert_eq!(places(&state, before, 3).await, all[2..5]);
        assert_eq!(places(&state, Some(EventPlace { index: 1, place: 0 }), 3).await, []);
    }

    #[test]
    fn an_event_tells_both_sides_and_the_whole_record() {
        let event = told(conflict_event(42, 1));
        assert_eq!(
            (event.rule.as_str(), event.stale, event.at().to_string().as_str()),
            ("pin-beats-unpin", true, "42-1")
        );
        assert_eq!((event.winner.author, event.winner.wish.as_str()), (EventAuthor::Log, "pin"));
        assert_eq!(event.winner.pin.map(|pin| pin.options.name).as_deref(), Some("kept"));
        assert_eq!((event.loser.author, event.loser.pin), (EventAuthor::Peer(PEER.parse().unwrap()), None));
        let message = format!(
            "{CID}: kept the pin in the log at 2027-01-15T08:00:00Z, not the unpin by {PEER} (pin-beats-unpin, stale)"
        );
        assert_eq!(event.message, message);
    }
}
