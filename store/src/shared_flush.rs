//! One flush for all that ask while another is under way.
//!
//! **Invariant:** a caller returns after a flush that began after its call, so what it wrote before is in it.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// Who flushes, and how often it was done.
#[derive(Debug, Default)]
pub(crate) struct SharedFlush {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Flushes begun, the one under way included.
    begun: u64,
    under_way: bool,
    /// The last flush that succeeded.
    succeeded: u64,
}

impl SharedFlush {
    /// Returns after a flush that began after the call: one of somebody else, or `flush` itself. Blocks.
    pub(crate) fn share<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock();
        let awaited = state.begun + 1;
        while state.under_way && state.succeeded < awaited {
            self.ended.wait(&mut state);
        }
        if state.succeeded >= awaited {
            return Ok(());
        }
        // Nobody flushes: either nobody did, or whoever did failed, and this caller learns why for itself.
        state.begun += 1;
        state.under_way = true;
        let number = state.begun;
        drop(state);
        let end = flush();
        let mut state = self.state.lock();
        state.under_way = false;
        if end.is_ok() {
            state.succeeded = number;
        }
        drop(state);
        self.ended.notify_all();
        end
    }
}

/// The same for callers that wait without a thread.
#[derive(Debug, Default)]
pub(crate) struct SharedTurn {
    /// How many callers came.
    came: AtomicU64,
    /// Those up to this one are served; held by the one who flushes.
    served: tokio::sync::Mutex<u64>,
}

impl SharedTurn {
    /// Returns after a flush that began after the call.
    pub(crate) async fn share<E, F: Future<Output = Result<(), E>>>(&self, flush: impl FnOnce() -> F) -> Result<(), E> {
        let ticket = self.came.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = self.served.lock().await;
        if *served >= ticket {
            return Ok(());
        }
        let before_it_begins = self.came.load(Ordering::SeqCst);
        flush().await?;
        *served = before_it_begins;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use futures::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    /// Waits until so many threads wait for a flush under way.
    fn wait_for_waiting(shared: &SharedFlush, entered: &AtomicU32, number: u32) {
        while entered.load(Ordering::SeqCst) < number {
            std::thread::yield_now();
        }
        drop(shared.state.lock());
    }

    #[test]
    fn those_who_come_during_a_flush_share_the_next() {
        let (shared, flushes, entered) = (SharedFlush::default(), AtomicU32::new(0), AtomicU32::new(0));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_end) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (shared, flushes, entered) = (&shared, &flushes, &entered);
            scope.spawn(move || {
                shared.share(|| {
                    begun.send(()).unwrap();
                    flushes.fetch_add(1, Ordering::SeqCst);
                    may_end.recv().map_err(|_gone| ())
                })
            });
            has_begun.recv().unwrap();
            let late: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        entered.fetch_add(1, Ordering::SeqCst);
                        let flush = || {
                            flushes.fetch_add(1, Ordering::SeqCst);
                            Ok::<(), ()>(())
                        };
                        shared.share(flush)
                    })
                })
                .collect();
            wait_for_waiting(shared, entered, 8);
            go_on.send(()).unwrap();
            for thread in late {
                thread.join().unwrap().unwrap();
            }
        });
        let flushes = flushes.into_inner();
        assert!((2..9).contains(&flushes), "{flushes} flushes for nine callers; the first does not count for the rest");
    }

    #[test]
    fn a_failure_is_not_taken_for_a_flush() {
        let shared = SharedFlush::default();
        assert_eq!(shared.share(|| Err("full")), Err("full"));
        let mut done = false;
        let flush = || {
            done = true;
            Ok::<(), &str>(())
        };
        shared.share(flush).unwrap();
        assert!(done);
    }

    #[tokio::test]
    async fn tasks_that_come_during_a_flush_share_the_next() {
        let (shared, flushes) = (SharedTurn::default(), AtomicU32::new(0));
        let (go_on, may_end) = oneshot::channel::<()>();
        let count = || async {
            flushes.fetch_add(1, Ordering::SeqCst);
            Ok::<(), &str>(())
        };
        let first = shared.share(|| async {
            may_end.await.map_err(|_gone| "gone")?;
            count().await
        });
        let late = async {
            let late = join_all((0..8).map(|_| shared.share(count)));
            let mut late = Box::pin(late);
            assert!(futures::poll!(&mut late).is_pending(), "they wait for a flush that begins after they came");
            go_on.send(()).unwrap();
            late.await
        };
        let (first, late) = tokio::join!(first, late);
        first.unwrap();
        assert!(late.into_iter().all(|end| end.is_ok()));
        assert_eq!(flushes.load(Ordering::SeqCst), 2, "one for the first, one for all who came meanwhile");
        assert_eq!(shared.share(|| async { Err("full") }).await, Err("full"));
        shared.share(count).await.unwrap();
        assert_eq!(flushes.into_inner(), 3, "a failure is not taken for a flush");
    }
}
