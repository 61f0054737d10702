//! What the command lines of all three programs have in common: how flags may be spelt, how a line that makes no sense is
//! refused, completions and man pages from the tree of commands, progress bars, and files that are whole or not there.
//!
//! Nothing here knows what a cluster is.

#[cfg(any(test, feature = "testing"))]
pub mod checks;
mod generated;
mod progress;
mod refusal;
mod sink;
mod spelling;

pub use generated::{Shell, completions, man_pages};
pub use progress::Progress;
pub use refusal::refuse;
pub use sink::Sink;
pub use spelling::{Line, normalise};
