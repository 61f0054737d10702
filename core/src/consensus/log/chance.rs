//! Where a raft node's ids come from: a generator that is handed in.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::distr::{Distribution, StandardUniform};
use rand::rngs::StdRng;

/// One generator, shared by the parts of a raft node.
#[derive(Clone)]
pub(super) struct Chance(Arc<Mutex<StdRng>>);

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chance").finish_non_exhaustive()
    }
}

impl Chance {
    pub(super) fn new(generator: StdRng) -> Self {
        Self(Arc::new(Mutex::new(generator)))
    }

    /// The next value.
    pub(super) fn draw<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        self.0.lock().random()
    }
}
