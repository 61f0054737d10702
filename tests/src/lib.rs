//! The harness of the system tests.

pub mod content;
pub mod follower;
pub mod kubo;
pub mod process;
pub mod wait;
