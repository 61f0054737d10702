//! The one door to the database: every call goes through it to a thread of the blocking pool.
//!
//! **Invariant:** nobody holds the database but the door and the jobs it let in, so when the door is shut and the last
//! job has left, the database is closed.
//! **Invariant:** the number of jobs is bounded by kind: a flood of long scans holds up other scans only. When a kind
//! is full its callers wait.

use std::sync::Arc;

use cluster_core::ports::StateError;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Jobs of the ordering of writes; there are a handful of callers, each waiting for its answer.
const URGENT_JOBS: u32 = 64;
/// Short reads and writes: more than the disk can serve at once, fewer than the pool has threads.
const ORDINARY_JOBS: u32 = 64;
/// Scans and snapshots under way; each keeps a thread while its reader is slow, which has an end (see
/// [`crate::stream`]).
pub(crate) const LONG_JOBS: u32 = 64;

/// How pressing and how long a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The raft log and applying.
    Urgent,
    /// Reads and writes of a few records.
    Ordinary,
    /// As long as its reader likes.
    Long,
}

/// The door to `T`.
#[derive(Debug)]
pub(crate) struct Door<T> {
    inside: RwLock<Option<Arc<T>>>,
    urgent: Arc<Semaphore>,
    ordinary: Arc<Semaphore>,
    long: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl<T: Send + Sync + 'static> Door<T> {
    /// A door to `inside`.
    pub(crate) fn new(inside: T) -> Self {
        let permits = |number: u32| Arc::new(Semaphore::new(usize::try_from(number).unwrap_or(1)));
        Self {
            inside: RwLock::new(Some(Arc::new(inside))),
            urgent: permits(URGENT_JOBS),
            ordinary: permits(ORDINARY_JOBS),
            long: permits(LONG_JOBS),
            closing: watch::Sender::new(false),
        }
    }

    /// Runs a job on a storage thread. Once it has begun it goes on to its end, even if nobody waits any more.
    pub(crate) async fn run<R, F>(&self, kind: Kind, job: F) -> Result<R, StateError>
    where
        R: Send + 'static,
        F: FnOnce(&T) -> Result<R, StateError> + Send + 'static,
    {
        let entered = self.enter(kind).await?;
        let end = tokio::task::spawn_blocking(move || job(entered.inside())).await;
        end.unwrap_or_else(|error| Err(StateError::Io { operation: "finish a job", cause: error.into() }))
    }

    /// Runs a job on a thread of the store's own; on a worker of the runtime only what does not touch the disk.
    pub(crate) fn call<R>(&self, job: impl FnOnce(&T) -> Result<R, StateError>) -> Result<R, StateError> {
        let inside = self.inside.read().clone().ok_or(StateError::Closed)?;
        job(&inside)
    }

    /// Lets a job in that the caller runs itself, on a storage thread.
    pub(crate) async fn enter(&self, kind: Kind) -> Result<Entered<T>, StateError> {
        let permit = self.permits(kind).acquire_owned().await.map_err(|_closed| StateError::Closed)?;
        let inside = self.inside.read().clone().ok_or(StateError::Closed)?;
        Ok(Entered { inside, _permit: permit })
    }

    /// Is true once the door is being shut: long jobs leave then.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Lets nobody in any more.
    pub(crate) fn shut(&self) {
        self.closing.send_replace(true);
        drop(self.inside.write().take());
    }

    /// Lets nobody in any more, waits until the last job has left, and runs `last` on what was inside. Jobs that wait
    /// outside are refused.
    pub(crate) async fn close<F>(&self, last: F) -> Result<(), StateError>
    where
        F: FnOnce(&T) -> Result<(), StateError> + Send + 'static,
    {
        let inside = self.inside.write().take();
        self.closing.send_replace(true);
        for (kind, jobs) in [(Kind::Long, LONG_JOBS), (Kind::Ordinary, ORDINARY_JOBS), (Kind::Urgent, URGENT_JOBS)] {
            let permits = self.permits(kind);
            drop(permits.clone().acquire_many_owned(jobs).await);
            permits.close();
        }
        let Some(inside) = inside else { return Ok(()) };
        let end = tokio::task::spawn_blocking(move || {
            let end = last(&inside);
            drop(inside);
            end
        });
        end.await.unwrap_or_else(|error| Err(StateError::Io { operation: "close", cause: error.into() }))
    }

    fn permits(&self, kind: Kind) -> Arc<Semaphore> {
        Arc::clone(match kind {
            Kind::Urgent => &self.urgent,
            Kind::Ordinary => &self.ordinary,
            Kind::Long => &self.long,
        })
    }
}

/// A job's stay inside. The database is let go before the permit.
#[derive(Debug)]
pub(crate) struct Entered<T> {
    inside: Arc<T>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Entered<T> {
    /// What the door leads to.
    pub(crate) fn inside(&self) -> &T {
        &self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shut_door_lets_nobody_in() {
        let door = Door::new(7_u32);
        assert_eq!(door.run(Kind::Ordinary, |number| Ok(*number)).await.unwrap(), 7);
        door.close(|_| Ok(())).await.unwrap();
        assert!(matches!(door.run(Kind::Urgent, |number| Ok(*number)).await, Err(StateError::Closed)));
        door.close(|_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn closing_waits_for_those_inside() {
        let door = Arc::new(Door::new(()));
        let entered = door.enter(Kind::Long).await.unwrap();
        let mut close = Box::pin(door.close(|()| Ok(())));
        assert!(futures::poll!(&mut close).is_pending());
        drop(entered);
        close.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_of_a_job_is_an_error_of_its_caller_only() {
        let door = Door::new(());
        let end = door.run::<(), _>(Kind::Ordinary, |()| panic!("a bug")).await;
        assert!(matches!(end, Err(StateError::Io { .. })));
        door.run(Kind::Ordinary, |()| Ok(())).await.unwrap();
    }
}
