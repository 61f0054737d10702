//! `state export`: the pinset, one JSON object a line, from a stopped peer's state or through a running peer's REST API.

use std::io::IsTerminal;

use anyhow::Context;
use cluster_peer::config::{Config, ConfigError, ConfigFolder, ExecutionLock};
use cluster_peer::state::StoppedState;
use cluster_terminal::{Progress, Sink};
use cluster_types::{BoxError, Pin};
use futures::{Stream, StreamExt, TryStreamExt};

use super::line::Line;
use super::online;
use crate::args::{Arguments, ExportArguments};
use crate::commands::daemon::start_logging;

/// Runs the command.
pub(super) fn run(export: &ExportArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = super::folder(arguments)?;
    let lock = match ExecutionLock::acquire(&folder) {
        Ok(lock) => Some(lock),
        Err(ConfigError::Locked { .. }) => None,
        Err(error) => return Err(error).context("obtaining execution lock"),
    };
    let loaded = super::configuration(&folder)?;
    let mut output = Sink::open(export.file.as_deref()).context("exporting the state")?;
    // Lines on a terminal say by themselves how far it is.
    let progress = Progress::of_items("pins", None, export.file.is_some() || !std::io::stdout().is_terminal());
    let runtime = super::runtime()?;
    let exported = runtime.block_on(async {
        if lock.is_some() {
            stopped(&loaded.config, &mut output, &progress).await
        } else {
            running(&loaded.config, &folder, &mut output, &progress).await
        }
    });
    exported.context("exporting the state")?;
    output.finish().context("exporting the state")
}

async fn stopped(config: &Config, output: &mut Sink, progress: &Progress) -> anyhow::Result<()> {
    let state = StoppedState::open(&config.state_folder).await.map_err(anyhow::Error::from_boxed)?;
    let Some(state) = state else {
        eprintln!("there is no state in {}: the export is empty", config.state_folder.display());
        return Ok(());
    };
    let written = write(state.pins(), output, progress).await;
    state.close().await.map_err(anyhow::Error::from_boxed)?;
    written
}

async fn running(config: &Config, folder: &ConfigFolder, output: &mut Sink, progress: &Progress) -> anyhow::Result<()> {
    let endpoint = online::endpoint(config, folder)?;
    eprintln!("the peer is running: exporting through its REST API at {}", endpoint.address());
    let pins = endpoint.pins().await.context("asking the peer that holds the folder's lock")?;
    write(pins, output, progress).await
}

async fn write<E>(
    pins: impl Stream<Item = Result<Pin, E>>,
    output: &mut Sink,
    progress: &Progress,
) -> anyhow::Result<()>
where
    E: Into<BoxError>,
{
    let mut pins = std::pin::pin!(pins.map_err(|error| anyhow::Error::from_boxed(error.into())));
    while let Some(pin) = pins.next().await {
        let line = serde_json::to_string(&Line::of(&pin?)).context("writing")?;
        output.writer().write_all(escaped(line).as_bytes()).context("writing")?;
        output.writer().write_all(b"\n").context("writing")?;
        progress.add(1);
    }
    Ok(())
}

/// As the original writes JSON: what a browser could take for markup, and what JavaScript takes for the end of a line, is
/// escaped. Such letters stand inside of strings only.
fn escaped(line: String) -> String {
    const ESCAPED: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    if !line.contains(ESCAPED) {
        return line;
    }
    let mut text = String::with_capacity(line.len() + 16);
    for letter in line.chars() {
        if ESCAPED.contains(&letter) {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            text.push(letter);
        }
    }
    text
}
