//! What the event log tells: wishes that lost against others when writes made apart came together (`GET /events`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::peer::{PeerId, PeerIdError, parse_peer_id};
use crate::pin::Pin;
use crate::time::Timestamp;

/// Where an event stands: later ones are greater. Peers give the same event the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventPlace {
    /// Index of the log entry that merged the writes.
    pub index: u64,
    /// Its number among the events of that entry.
    pub place: u32,
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.place)
    }
}

/// A text is not an [`EventPlace`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not <index>-<place>")]
pub struct EventPlaceError {
    text: String,
}

impl FromStr for EventPlace {
    type Err = EventPlaceError;

    fn from_str(text: &str) -> Result<Self, EventPlaceError> {
        let parts = text.split_once('-').and_then(|(index, place)| Some((index.parse().ok()?, place.parse().ok()?)));
        let (index, place) = parts.ok_or_else(|| EventPlaceError { text: text.chars().take(64).collect() })?;
        Ok(Self { index, place })
    }
}

/// Who wrote one side of a conflict: `"log"`, or a peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventAuthor {
    /// It was accepted with a quorum.
    Log,
    /// This peer accepted it without one.
    Peer(PeerId),
}

impl fmt::Display for EventAuthor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("log"),
            Self::Peer(peer) => write!(f, "{peer}"),
        }
    }
}

impl From<EventAuthor> for String {
    fn from(author: EventAuthor) -> Self {
        author.to_string()
    }
}

impl TryFrom<String> for EventAuthor {
    type Error = PeerIdError;

    fn try_from(text: String) -> Result<Self, PeerIdError> {
        if text == "log" { Ok(Self::Log) } else { parse_peer_id(&text).map(Self::Peer) }
    }
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventParty {
    /// Who wrote it.
    pub author: EventAuthor,
    /// What it was for: `pin`, `unpin`, `expiry`, `reallocation` or `pin of a joined cluster`.
    pub wish: String,
    /// When; the zero time where that is not known.
    pub time: Timestamp,
    /// The whole record it wanted; `None` where it wanted none, and for a reallocation.
    pub pin: Option<Pin>,
}

/// A wish that lost against another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The pin.
    pub cid: Cid,
    /// Why the winner won, like `pin-beats-unpin`.
    pub rule: String,
    /// Whether the write that brought it up is older than what the cluster remembers of merges.
    pub stale: bool,
    /// When they were merged.
    pub time: Timestamp,
    /// Index of the log entry that merged them.
    pub index: u64,
    /// Its number among the events of that entry.
    pub place: u32,
    /// What stands.
    pub winner: EventParty,
    /// What does not.
    pub loser: EventParty,
    /// All of it in a sentence.
    pub message: String,
}

impl Event {
    /// Most events of one request.
    pub const MAX_LIMIT: usize = 1_000;
    /// Events of a request that does not say how many.
    pub const DEFAULT_LIMIT: usize = 100;

    /// Where it stands: events before it are asked for with this.
    pub fn at(&self) -> EventPlace {
        EventPlace { index: self.index, place: self.place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_and_nothing_else_is() {
        let place = EventPlace { index: 42, place: 7 };
        assert_eq!(place.to_string(), "42-7");
        assert_eq!("42-7".parse(), Ok(place));
        for bad in ["", "42", "42-", "-7", "42-7-1", "42-4294967296", "x-1", &"9".repeat(200)] {
            let error = bad.parse::<EventPlace>().unwrap_err();
            assert!(error.to_string().len() < 100, "{error}");
        }
    }

    #[test]
    fn an_author_is_the_log_or_a_peer() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        for (author, text) in [(EventAuthor::Log, "log"), (EventAuthor::Peer(peer.parse().unwrap()), peer)] {
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::to_string(&author).unwrap(), json);
            assert_eq!(serde_json::from_str::<EventAuthor>(&json).unwrap(), author);
        }
        assert!(serde_json::from_str::<EventAuthor>("\"nobody\"").is_err());
    }
}
