//! One file per command.

pub(crate) mod cat;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod init;
pub(crate) mod recover;
pub(crate) mod state;
