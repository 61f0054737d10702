//! Requests that change state: they outlive the client that sent them, and their number is bounded.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cluster_core::cluster::{ClusterService, Listing, ServiceResult};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{ErrorClass, WireError};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::stream;

/// How many items of a listing that runs in its own task may wait for the client.
pub(crate) const LISTING_QUEUE: usize = 16;

/// Runs writes as tasks of their own.
pub(crate) struct Writes {
    tasks: TaskGroup,
    places: Arc<Semaphore>,
    most: u32,
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Writes {
    /// At most so many at once, as tasks of `tasks`.
    pub(crate) fn new(most: usize, tasks: &TaskGroup) -> Self {
        let most = u32::try_from(most.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { tasks: tasks.clone(), places: Arc::new(Semaphore::new(most as usize)), most }
    }

    /// Returns when none is under way.
    pub(crate) async fn done(&self) {
        // An error would mean that the semaphore is closed, which it never is.
        let _ = self.places.acquire_many(self.most).await;
    }

    /// Room for one more.
    pub(crate) fn permit(&self) -> ServiceResult<OwnedSemaphorePermit> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| WireError::new(ErrorClass::Unavailable, "too many writes are under way, try again later"))
    }

    /// Runs `work`, which holds a permit, to its end.
    pub(crate) fn spawn(&self, permit: OwnedSemaphorePermit, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn("api write", OnExit::Continue, async move {
            work.await;
            drop(permit);
            Ok::<(), Infallible>(())
        });
    }

    /// Carries out a write whether or not its client waits for the answer.
    pub(crate) async fn run<T, F, Fut>(&self, service: &Arc<dyn ClusterService>, write: F) -> ServiceResult<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn ClusterService>) -> Fut,
        Fut: Future<Output = ServiceResult<T>> + Send + 'static,
    {
        let permit = self.permit()?;
        let (answer, answered) = oneshot::channel();
        let write = write(Arc::clone(service));
        self.spawn(permit, async move {
            // Nobody may be listening any more; the write counts all the same.
            let _ = answer.send(write.await);
        });
        let lost = || WireError::new(ErrorClass::Unknown, "the write ended without an answer");
        answered.await.map_err(|_| lost())?
    }

    /// Runs a listing that changes state to its end whether or not its client reads it.
    pub(crate) fn listing<T: Send + 'static>(
        &self,
        service: &dyn ClusterService,
        start: impl FnOnce(&dyn ClusterService) -> Listing<T>,
    ) -> ServiceResult<Listing<T>> {
        let permit = self.permit()?;
        let mut listing = start(service);
        let (items, received) = mpsc::channel(LISTING_QUEUE);
        let (end, ended) = oneshot::channel();
        self.spawn(permit, async move {
            while let Some(item) = listing.next().await {
                let _ = items.send(item).await;
            }
            let _ = end.send(());
        });
        Ok(stream::whole(received, ended).boxed())
    }
}
