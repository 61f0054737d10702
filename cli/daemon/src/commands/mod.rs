//! One file per command.

pub(crate) mod cat;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod hash_password;
pub(crate) mod init;
pub(crate) mod recover;
pub(crate) mod state;

use anyhow::Context;
use cluster_peer::config::{ConfigFolder, ExecutionLock};

/// The right to work in a folder. The words are those that scripts know.
pub(crate) fn lock(folder: &ConfigFolder) -> anyhow::Result<ExecutionLock> {
    ExecutionLock::acquire(folder).context("obtaining execution lock")
}
