//! `state`: takes the pinset of a peer out, brings one in, sets it aside, looks at it.

mod cleanup;
mod crdt;
mod export;
mod import;
mod line;
mod online;

use anyhow::{Context, bail};
use cluster_peer::config::{ConfigFolder, ExecutionLock, Loaded, ProcessEnvironment, load_stopped};
use tokio::runtime::{Builder, Runtime};

use crate::args::{Arguments, CrdtCommand, StateCommand};

/// Runs the command.
pub(crate) fn run(state: &StateCommand, arguments: &Arguments) -> anyhow::Result<()> {
    match state {
        StateCommand::Export(export) => export::run(export, arguments),
        StateCommand::Import(import) => import::run(import, arguments),
        StateCommand::Recover(recover) => super::recover::run(recover, arguments),
        StateCommand::Cleanup(cleanup) => cleanup::run(cleanup, arguments),
        StateCommand::Crdt(CrdtCommand::Info(info)) => crdt::show_info(info, arguments),
        StateCommand::Crdt(CrdtCommand::Dot(dot)) => crdt::draw(dot, arguments),
        StateCommand::Crdt(CrdtCommand::MarkDirty) => crdt::mark(true, arguments),
        StateCommand::Crdt(CrdtCommand::MarkClean) => crdt::mark(false, arguments),
    }
}

/// The folder of a peer that was initialised.
fn folder(arguments: &Arguments) -> anyhow::Result<ConfigFolder> {
    let folder = arguments.folder()?;
    if !folder.config_file().exists() {
        bail!("loading the configuration: {} does not exist", folder.config_file().display());
    }
    Ok(folder)
}

/// The right to work in the folder of a stopped peer, and its configuration.
fn stopped(folder: &ConfigFolder) -> anyhow::Result<(ExecutionLock, Loaded)> {
    let lock = crate::commands::lock(folder)?;
    Ok((lock, configuration(folder)?))
}

fn configuration(folder: &ConfigFolder) -> anyhow::Result<Loaded> {
    load_stopped(folder, &ProcessEnvironment).context("loading the configuration")
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the runtime")
}
