//! The harness of the system tests.

pub mod content;
pub mod kubo;
pub mod linear;
pub mod process;
pub mod wait;
