//! The harness of the system tests.

pub mod content;
pub mod follower;
pub mod ipfs_script;
pub mod kubo;
pub mod namespaces;
pub mod process;
pub mod settle;
pub mod wait;
