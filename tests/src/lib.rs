//! The harness of the system tests.

pub mod kubo;
