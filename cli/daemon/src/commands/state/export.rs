//! `state export`: the pinset, one JSON object a line, from a stopped peer's state or through a running peer's REST API.

use anyhow::Context;
use cluster_peer::config::{Config, ConfigError, ExecutionLock};
use cluster_peer::state::StoppedState;
use cluster_types::{BoxError, Pin};
use futures::{Stream, StreamExt, TryStreamExt};

use super::{online, output::Output};
use crate::args::{Arguments, ExportArguments};
use crate::commands::daemon::start_logging;

/// Runs the command.
pub(super) fn run(export: &ExportArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = super::folder(arguments)?;
    let lock = match ExecutionLock::acquire(&folder) {
        Ok(lock) => Some(lock),
        Err(ConfigError::Locked { .. }) => None,
        Err(error) => return Err(error).context("locking the folder"),
    };
    let loaded = super::configuration(&folder)?;
    let mut output = Output::open(export.file.as_deref()).context("exporting the state")?;
    let runtime = super::runtime()?;
    let exported = runtime.block_on(async {
        if lock.is_some() {
            stopped(&loaded.config, &mut output).await
        } else {
            running(&loaded.config, &mut output).await
        }
    });
    exported.context("exporting the state")?;
    output.finish().context("exporting the state")
}

async fn stopped(config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let state = StoppedState::open(&config.state_folder).await.map_err(anyhow::Error::from_boxed)?;
    let Some(state) = state else {
        eprintln!("there is no state in {}: the export is empty", config.state_folder.display());
        return Ok(());
    };
    let written = write(state.pins(), output).await;
    state.close().await.map_err(anyhow::Error::from_boxed)?;
    written
}

async fn running(config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let endpoint = online::endpoint(config)?;
    eprintln!("the peer is running: exporting through its REST API at {}", endpoint.address());
    let pins = endpoint.pins().await.context("asking the peer that holds the folder's lock")?;
    write(pins, output).await
}

async fn write<E>(pins: impl Stream<Item = Result<Pin, E>>, output: &mut Output) -> anyhow::Result<()>
where
    E: Into<BoxError>,
{
    let mut pins = std::pin::pin!(pins.map_err(|error| anyhow::Error::from_boxed(error.into())));
    while let Some(pin) = pins.next().await {
        output.pin(&pin?)?;
    }
    Ok(())
}
