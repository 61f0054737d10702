//! `state cleanup`: takes the state away from a stopped peer. It is kept beside, as the original keeps its raft data.

use std::io;

use anyhow::Context;
use cluster_peer::state::set_aside;

use crate::args::{Arguments, CleanupArguments};
use crate::commands::daemon::start_logging;
use crate::prompt;

const REMOVE: &str = "The peer state will be removed.  Existing pins may be lost. Continue?";

/// Runs the command.
pub(super) fn run(cleanup: &CleanupArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = super::folder(arguments)?;
    let (_lock, loaded) = super::stopped(&folder)?;
    if !cleanup.force && !arguments.force {
        let answer = prompt::yes_or_no(REMOVE, &mut io::stdin().lock(), &mut io::stdout());
        if !answer.context("reading the answer")? {
            return Ok(());
        }
    }
    match set_aside(&loaded.config.state_folder, loaded.config.consensus.backups).context("moving the state away")? {
        Some(place) => tracing::info!(kept_in = %place.display(), "the state was removed"),
        None => tracing::info!("there is no state"),
    }
    Ok(())
}
