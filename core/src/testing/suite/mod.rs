//! One conformance suite per port: the double and the real adapter both run it.

pub mod ipfs;
