//! The state of a stopped peer: taken out, brought in, set aside, looked at.
//!
//! The caller holds the folder's execution lock; the store has a lock of its own besides.

mod check;
mod documents;
mod dot;
mod export;
mod import;
mod place;
mod record;

pub use check::{CheckError, mark_dirty};
pub(crate) use check::{check_if_dirty, is_dirty};
pub use dot::crdt_dot;
pub use export::StoppedState;
#[cfg(any(test, fuzzing))]
pub(crate) use import::read_all;
pub use import::{ImportError, ImportOptions, import};
pub use place::set_aside;
pub(crate) use place::settle;
