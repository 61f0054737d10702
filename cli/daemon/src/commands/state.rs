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
    format!(
        "Shards in use: {} of {}\nPins: {}\nEpochs: {epochs}\nTail entries: {} (longest tail: {})\nApplied index: {}\n\
         Digest: {}\n",
        info.shards_in_use,
        info.shards,
        info.pins,
        info.tail_entries,
        info.longest_tail,
        info.applied_index,
        info.digest,
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
    })
}

#[cfg(test)]
mod tests {
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
        };
        assert_eq!(
            text(&info),
            "Shards in use: 2 of 4096\nPins: 3\nEpochs: 1 to 5\nTail entries: 12 (longest tail: 7)\nApplied index: 9\n\
             Digest: ab\n"
        );
        let json = json(&info);
        assert_eq!((&json["oldest_epoch"], &json["newest_epoch"]), (&1.into(), &5.into()));
        assert_eq!((&json["tail_entries"], &json["longest_tail"]), (&12.into(), &7.into()));
        let empty = CrdtInfo { epochs: None, ..info };
        assert!(text(&empty).contains("Epochs: none\n") && super::json(&empty)["oldest_epoch"].is_null());
    }
}
