//! `state`: what a stopped peer holds.

use anyhow::{Context, bail};
use cluster_peer::config::{ConsensusMode, ExecutionLock, ProcessEnvironment, load};
use cluster_peer::inspect::{CrdtInfo, crdt_info};

use crate::args::{Arguments, CrdtCommand, Encoding, InfoArguments, StateCommand};
use crate::commands::daemon::start_logging;

/// Runs the command.
pub(crate) fn run(state: &StateCommand, arguments: &Arguments) -> anyhow::Result<()> {
    match state {
        StateCommand::Crdt(CrdtCommand::Info(info)) => show_info(info, arguments),
        StateCommand::Recover(recover) => super::recover::run(recover, arguments),
    }
}

/// `state crdt info`.
fn show_info(info: &InfoArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = arguments.folder()?;
    if !folder.config_file().exists() {
        bail!("loading the configuration: {} does not exist", folder.config_file().display());
    }
    let _lock = ExecutionLock::acquire(&folder).context("reading the state")?;
    let loaded = load(&folder, &ProcessEnvironment).context("loading the configuration")?;
    if !matches!(loaded.config.consensus.mode, ConsensusMode::Crdt { .. }) {
        bail!("crdt subcommands can only be run on peers initialized with crdt consensus");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let found = runtime.block_on(crdt_info(&loaded.config.state_folder));
    let found = found.map_err(anyhow::Error::from_boxed).context("reading the state")?;
    match info.encoding {
        Encoding::Text => print!("{}", text(&found)),
        Encoding::Json => println!("{}", json(&found)),
    }
    Ok(())
}

fn text(info: &CrdtInfo) -> String {
    let epochs = info.epochs.map_or_else(|| "none".to_owned(), |(oldest, newest)| format!("{oldest} to {newest}"));
    let oldest = info.outbox.oldest.map_or_else(|| "none".to_owned(), |time| time.to_string());
    format!(
        "Shards in use: {} of {}\nPins: {}\nEpochs: {epochs}\nTail entries: {} (longest tail: {})\nApplied index: {}\n\
         Digest: {}\nOutbox: {} own, {} of others, oldest: {oldest}\nMerged writes remembered: {}\nHistories: {}\n",
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
        };
        assert_eq!(
            text(&info),
            "Shards in use: 2 of 4096\nPins: 3\nEpochs: 1 to 5\nTail entries: 12 (longest tail: 7)\nApplied index: 9\n\
             Digest: ab\nOutbox: 4 own, 5 of others, oldest: 2027-01-15T08:00:00Z\nMerged writes remembered: 11\n\
             Histories: 6\n"
        );
        let json = json(&info);
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
