//! The informers a peer can be configured with.

mod disk;
mod queue;
mod tags;

pub(crate) use disk::REPO_SIZE;
pub use disk::{DiskInformer, DiskMetric};
pub use queue::QueueInformer;
pub use tags::TagsInformer;
