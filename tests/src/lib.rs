//! The harness of the system tests.

pub mod kubo;
pub mod linear;
pub mod process;
pub mod wait;
