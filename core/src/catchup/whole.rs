//! Asks one peer for all of one shard.

use std::time::Duration;

use cluster_types::PeerId;

use super::pull::{MAX_SHARD_RECORDS, open};
use super::wire::{Ask, PartKind, Told, Wanted};
use crate::crdt::Records;
use crate::rpc::{Call, PeerClient, Reply};

/// What a peer says.
#[derive(Debug)]
pub(crate) enum Asked {
    /// These are its records.
    Records(Records),
    /// It cannot tell yet.
    Later,
    /// It cannot tell, or gave something that makes no sense.
    Never,
}

/// Asks a peer for all records of a shard as of a log index. `limit` is for each of its answers.
pub(crate) async fn ask_whole(client: &PeerClient, peer: PeerId, index: u64, shard: u16, limit: Duration) -> Asked {
    let mut records = Records::new();
    while records.len() < MAX_SHARD_RECORDS {
        let skip = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let what = Wanted::Whole { shards: vec![shard], skip };
        let told = match client.ask(peer, &Call::Shards(Ask { index, enough: u32::MAX, what }), limit).await {
            Ok(Reply::Shards(Told::Behind | Told::Busy)) => return Asked::Later,
            Ok(Reply::Shards(told)) => told,
            Ok(_) => return Asked::Never,
            Err(error) => {
                tracing::debug!(%peer, shard, %error, "a peer does not tell a shard");
                return Asked::Never;
            }
        };
        let Some([(_, kind, part)]) = open(told, &[shard]).and_then(|parts| <[_; 1]>::try_from(parts).ok()) else {
            return Asked::Never;
        };
        let before = records.len();
        records.extend(part.into_iter().filter_map(|(cid, record)| Some((cid, record?))));
        match kind {
            PartKind::Complete => return Asked::Records(records),
            PartKind::More if records.len() > before => {}
            PartKind::More | PartKind::BaseGone | PartKind::IndexGone | PartKind::TooMuch => return Asked::Never,
        }
    }
    Asked::Never
}
