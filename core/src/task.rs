//! Every task is born and buried here.
//!
//! A [`TaskGroup`] names its tasks, knows what the end of each means, and waits for all of them when the peer stops.
//! Nothing ends in silence: an error or a panic is logged with the task's name, and one that the peer cannot live
//! without stops the peer.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, ErrorChain};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task is called in logs.
pub type TaskName = &'static str;

/// What the end of a task means while the group is not stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The task has done its work; an error is logged.
    Continue,
    /// The peer cannot go on without it.
    StopPeer,
}

/// Tasks that stop together.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Mutex<Vec<TaskName>>,
    failed: Mutex<Option<TaskName>>,
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("running", &self.inner.running.lock().len()).finish_non_exhaustive()
    }
}

impl TaskGroup {
    /// A group with no tasks.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                running: Mutex::new(Vec::new()),
                failed: Mutex::new(None),
            }),
        }
    }

    /// Is cancelled when the group stops.
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Runs a task until it ends.
    #[expect(clippy::disallowed_methods, reason = "this is where tasks are born")]
    pub fn spawn<F, E>(&self, name: TaskName, on_exit: OnExit, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let inner = Arc::clone(&self.inner);
        inner.running.lock().push(name);
        let tracked = self.inner.tracker.track_future(async move {
            let end = std::panic::AssertUnwindSafe(task).catch_unwind().await;
            inner.bury(name, on_exit, end.map(|result| result.map_err(Into::into)).map_err(drop));
        });
        drop(tokio::spawn(tracked));
    }

    /// Runs work that goes on until the group stops, and is dropped then; a panic in it stops the peer.
    pub fn spawn_until_stopped(&self, name: TaskName, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop_token();
        self.spawn(name, OnExit::StopPeer, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
            Ok::<(), BoxError>(())
        });
    }

    /// The task whose end stopped the group, if one did.
    pub fn failed(&self) -> Option<TaskName> {
        *self.inner.failed.lock()
    }

    /// Tells every task to stop and waits at most `grace`; returns those that would not.
    pub async fn shut_down(&self, grace: Duration) -> Vec<TaskName> {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        match tokio::time::timeout(grace, self.inner.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.inner.running.lock().clone(),
        }
    }
}

impl Inner {
    fn bury(&self, name: TaskName, on_exit: OnExit, end: Result<Result<(), BoxError>, ()>) {
        {
            let mut running = self.running.lock();
            if let Some(place) = running.iter().position(|running| *running == name) {
                running.swap_remove(place);
            }
        }
        match &end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(task = name, error = %ErrorChain(error.as_ref()), "task failed"),
            Err(()) => tracing::error!(task = name, "task panicked"),
        }
        if on_exit == OnExit::StopPeer && !self.stop.is_cancelled() {
            if matches!(end, Ok(Ok(()))) {
                tracing::error!(task = name, "task ended early");
            }
            *self.failed.lock() = Some(name);
            self.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_named() {
        let tasks = TaskGroup::new();
        tasks.spawn("deaf", OnExit::Continue, std::future::pending::<Result<(), BoxError>>());
        let stop = tasks.stop_token();
        tasks.spawn("obedient", OnExit::StopPeer, async move {
            stop.cancelled().await;
            Ok::<(), BoxError>(())
        });
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, vec!["deaf"]);
        assert_eq!(tasks.failed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_vital_task_stops_the_group() {
        let tasks = TaskGroup::new();
        let stop = tasks.stop_token();
        tasks.spawn("vital", OnExit::StopPeer, async { Err::<(), BoxError>("gone".into()) });
        stop.cancelled().await;
        assert_eq!(tasks.failed(), Some("vital"));
        assert!(tasks.shut_down(Duration::from_secs(1)).await.is_empty());
    }
}
