//! The composition root: from a configuration folder to a running cluster peer.
//!
//! This is the only package that knows every adapter. [`config`] is the only code that reads the configuration file
//! and the environment; [`logging`] decides what is logged.

pub mod config;
pub mod logging;
