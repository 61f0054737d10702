//! `state crdt`: the shards of a stopped peer in `crdt` mode.

use anyhow::{Context, bail};
use cluster_peer::config::{ConsensusMode, ExecutionLock, Loaded};
use cluster_peer::inspect::{CrdtInfo, crdt_info};
use cluster_peer::state::{crdt_dot, mark_dirty};
use cluster_terminal::Sink;

use crate::args::{Arguments, DotArguments, Encoding, InfoArguments};
use crate::commands::daemon::start_logging;

/// `state crdt info`.
pub(super) fn show_info(info: &InfoArguments, arguments: &Arguments) -> anyhow::Result<()> {
    let (_lock, loaded) = stopped(arguments)?;
    let found = super::runtime()?.block_on(crdt_info(&loaded.config.state_folder));
    let found = found.map_err(anyhow::Error::from_boxed).context("reading the state")?;
    match info.encoding {
        Encoding::Text => print!("{}", text(&found)),
        Encoding::Json => println!("{}", json(&found)),
    }
    Ok(())
}

/// `state crdt dot`.
pub(super) fn draw(dot: &DotArguments, arguments: &Arguments) -> anyhow::Result<()> {
    let (_lock, loaded) = stopped(arguments)?;
    let mut output = Sink::open(dot.file.as_deref()).context("drawing the state")?;
    let drawn = super::runtime()?.block_on(crdt_dot(&loaded.config.state_folder, output.writer()));
    drawn.map_err(anyhow::Error::from_boxed).context("drawing the state")?;
    output.finish().context("drawing the state")
}

/// `state crdt mark-dirty` and `mark-clean`.
pub(super) fn mark(dirty: bool, arguments: &Arguments) -> anyhow::Result<()> {
    let (_lock, loaded) = stopped(arguments)?;
    mark_dirty(&loaded.config.state_folder, dirty).context("marking the state")?;
    println!("Datastore marked '{}'", if dirty { "dirty" } else { "clean" });
    Ok(())
}

/// A stopped peer in `crdt` mode.
fn stopped(arguments: &Arguments) -> anyhow::Result<(ExecutionLock, Loaded)> {
    start_logging(arguments)?;
    let (lock, loaded) = super::stopped(&super::folder(arguments)?)?;
    if !matches!(loaded.config.consensus.mode, ConsensusMode::Crdt { .. }) {
        bail!("crdt subcommands can only be run on peers initialized with crdt consensus");
    }
    Ok((lock, loaded))
}

/// The first line is as the original has it: its heads are our shards, its height is our newest epoch.
fn text(info: &CrdtInfo) -> String {
    let epochs = info.epochs.map_or_else(|| "none".to_owned(), |(oldest, newest)| format!("{oldest} to {newest}"));
    let oldest = info.outbox.oldest.map_or_else(|| "none".to_owned(), |time| time.to_string());
    format!(
        "Number of heads: {}. Current max-height: {}. Dirty: {}\nShards in use: {} of {}\nPins: {}\nEpochs: {epochs}\nTail entries: {} (longest tail: {})\nApplied index: {}\n\
         Digest: {}\nOutbox: {} own, {} of others, oldest: {oldest}\nMerged writes remembered: {}\nHistories: {}\n\
         Dirty: {}\n",
        info.shards_in_use,
        info.epochs.map_or(0, |(_oldest, newest)| newest),
        info.dirty,
        info.shards_in_use,
        info.shards,
        info.pins,
        info.tail_entries,
        info.longest_tail,
        info.applied_index,
        info.digest,
        info.outbox.own,
        info.outbox.of_others,
        info.merged,
        info.histories,
        info.dirty,
    )
}

fn json(info: &CrdtInfo) -> serde_json::Value {
    serde_json::json!({
        "shards": info.shards,
        "shards_in_use": info.shards_in_use,
        "pins": info.pins,
        "oldest_epoch": info.epochs.map(|(oldest, _newest)| oldest),
        "newest_epoch": info.epochs.map(|(_oldest, newest)| newest),
        "tail_entries": info.tail_entries,
        "longest_tail": info.longest_tail,
        "applied_index": info.applied_index,
        "digest": info.digest,
        "outbox_own": info.outbox.own,
        "outbox_of_others": info.outbox.of_others,
        "outbox_oldest": info.outbox.oldest.map(|time| time.to_string()),
        "merged_writes": info.merged,
        "histories": info.histories,
        "dirty": info.dirty,
    })
}

#[cfg(test)]
mod tests {
    use cluster_peer::inspect::OutboxInfo;
    use cluster_types::Timestamp;

    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let info = CrdtInfo {
            applied_index: 9,
            pins: 3,
            digest: "ab".to_owned(),
            shards: 4096,
            shards_in_use: 2,
            epochs: Some((1, 5)),
            tail_entries: 12,
            longest_tail: 7,
            outbox: OutboxInfo { own: 4, of_others: 5, oldest: Some(Timestamp::from_unix_seconds(1_800_000_000)) },
            merged: 11,
            histories: 6,
            dirty: true,
        };
        assert_eq!(
            text(&info),
            "Number of heads: 2. Current max-height: 5. Dirty: true\nShards in use: 2 of 4096\nPins: 3\nEpochs: 1 to 5\nTail entries: 12 (longest tail: 7)\nApplied index: 9\n\
             Digest: ab\nOutbox: 4 own, 5 of others, oldest: 2027-01-15T08:00:00Z\nMerged writes remembered: 11\n\
             Histories: 6\nDirty: true\n"
        );
        let json = json(&info);
        assert_eq!(json["dirty"], true);
        assert_eq!((&json["oldest_epoch"], &json["newest_epoch"]), (&1.into(), &5.into()));
        assert_eq!((&json["tail_entries"], &json["longest_tail"]), (&12.into(), &7.into()));
        assert_eq!((&json["outbox_own"], &json["outbox_of_others"]), (&4.into(), &5.into()));
        assert_eq!((&json["merged_writes"], &json["histories"]), (&11.into(), &6.into()));
        assert_eq!(json["outbox_oldest"], "2027-01-15T08:00:00Z");
        let empty = CrdtInfo { epochs: None, outbox: OutboxInfo::default(), ..info };
        assert!(text(&empty).contains("oldest: none\n") && super::json(&empty)["outbox_oldest"].is_null());
        assert!(text(&empty).contains("Epochs: none\n") && super::json(&empty)["oldest_epoch"].is_null());
    }
}
