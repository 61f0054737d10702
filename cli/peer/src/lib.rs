//! The composition root: from a configuration folder to a running cluster peer.
//!
//! This is the only package that knows every adapter. [`config`] is the only code that reads the configuration file
//! and the environment; [`logging`] decides what is logged; [`Peer`] builds the rooms in the order of their
//! dependence and takes them down in the reverse one.

pub mod cat;
pub mod config;
mod following;
mod founding;
mod grace;
pub mod inspect;
pub mod logging;
mod peer;
mod running;
mod signals;
mod wire;

pub use peer::{Peer, PeerError};
pub use running::{RunError, run};
pub use signals::Signals;
pub use wire::node_answers;
