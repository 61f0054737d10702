//! The runtime openraft runs on: tokio, with two things of our own, so that a run can be repeated.
//!
//! openraft draws its pauses before elections from the runtime. A simulation seeds them for its thread; anywhere else
//! they come from the thread's own generator. And whoever waits for a change wakes in the order of coming (see
//! [`watch`]).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::async_runtime::watch as raft_watch;
use openraft::{AsyncRuntime, OptionalSend, OptionalSync};
use openraft_rt_tokio::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::watch;

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on everything openraft draws on this thread comes from `seed`.
#[cfg(any(test, feature = "testing"))]
pub fn seed_this_thread(seed: u64) {
    SEEDED.replace(Some(StdRng::seed_from_u64(seed)));
}

/// The runtime openraft runs on.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> StdRng {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(chance) => StdRng::from_rng(chance),
            None => StdRng::from_rng(&mut rand::rng()),
        })
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

/// Our channel of latest values, as openraft wants it.
#[derive(Debug)]
pub struct Watch;

impl raft_watch::Watch for Watch {
    type Sender<T: OptionalSend + OptionalSync> = watch::Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = watch::Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (watch::Sender<T>, watch::Receiver<T>) {
        watch::channel(value)
    }
}

impl<T: OptionalSend + OptionalSync> raft_watch::WatchSender<Watch, T> for watch::Sender<T> {
    fn send(&self, value: T) -> Result<(), raft_watch::SendError<T>> {
        if self.is_closed() {
            return Err(raft_watch::SendError(value));
        }
        drop(self.send_replace(value));
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        Self::send_if_modified(self, modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<T> {
        Self::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> raft_watch::WatchReceiver<Watch, T> for watch::Receiver<T> {
    async fn changed(&mut self) -> Result<(), raft_watch::RecvError> {
        Self::changed(self).await.map_err(|_gone| raft_watch::RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        Self::borrow_and_update(self)
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn the_runtime_keeps_what_openraft_asks_of_one() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }

    #[test]
    fn a_seed_makes_draws_repeatable() {
        let drawn = |seed| {
            seed_this_thread(seed);
            (Runtime::thread_rng().random::<u64>(), Runtime::thread_rng().random::<u64>())
        };
        let first = drawn(1);
        assert_ne!(first.0, first.1);
        assert_eq!(drawn(1), first);
        assert_ne!(drawn(2), first);
    }
}
