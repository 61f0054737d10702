//! What lets peers write apart and come together again.

pub mod merge;
