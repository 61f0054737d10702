//! The composition root: from a configuration folder to a running cluster peer.
//!
//! This is the only package that knows every adapter. [`config`] is the only code that reads the configuration file
//! and the environment; [`logging`] decides what is logged; [`Peer`] builds the rooms in the order of their
//! dependence and takes them down in the reverse one.

pub mod cat;
pub mod config;
mod doors;
mod following;
mod founding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grace;
pub mod inspect;
mod joining;
pub mod logging;
mod over_libp2p;
mod peer;
mod process;
pub mod recover;
mod running;
mod signals;
pub mod state;
mod telemetry;
mod tokens;
mod wire;

pub use cluster_api::{Scope, hash_password};
pub use peer::{Peer, PeerEnd, PeerError};
pub use running::{RunError, run};
pub use signals::Signals;
pub use tokens::own_token;
pub use wire::node_answers;
