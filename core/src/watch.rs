//! A channel that keeps the latest value, for one who tells and many who wait.
//!
//! The same as tokio's, but for one thing: those who wait wake in the order in which they began to wait. tokio's wake
//! in an order drawn from a generator that cannot be seeded, so no run with it could be repeated.
//!
//! **Invariant:** a change that was told before somebody begins to wait for it is never missed.

use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The sender is gone: nothing will change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left to tell of changes")]
pub struct Gone;

/// The value, locked for reading. Not to be held for long.
pub type Ref<'a, T> = MappedRwLockReadGuard<'a, T>;

#[derive(Debug)]
struct Shared<T> {
    state: RwLock<State<T>>,
    waiting: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Grows with every change.
    version: u64,
    senders: usize,
    receivers: usize,
}

impl<T> Shared<T> {
    fn borrow(&self) -> Ref<'_, T> {
        RwLockReadGuard::map(self.state.read(), |state| &state.value)
    }
}

/// Tells of changes.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Is told of changes.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that was seen last.
    seen: u64,
}

/// A channel that holds `value`. The receiver has seen it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A channel that holds `value` and has no receiver yet.
    pub fn new(value: T) -> Self {
        let state = State { value, version: 0, senders: 1, receivers: 0 };
        Self { shared: Arc::new(Shared { state: RwLock::new(state), waiting: Notify::new() }) }
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.shared.state.write();
        state.receivers += 1;
        Receiver { shared: Arc::clone(&self.shared), seen: state.version }
    }

    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    /// Whether nobody is left to be told.
    pub fn is_closed(&self) -> bool {
        self.shared.state.read().receivers == 0
    }

    /// Replaces the value, and returns the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|now| std::mem::swap(now, &mut before));
        before
    }

    /// Changes the value in place.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place; receivers are told if `modify` says that it did. Returns what it said.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut state = self.shared.state.write();
            if !modify(&mut state.value) {
                return false;
            }
            state.version += 1;
        }
        self.shared.waiting.notify_waiters();
        true
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state.write().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.write();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.shared.waiting.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    /// The present value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state.read();
        self.seen = state.version;
        RwLockReadGuard::map(state, |state| &state.value)
    }

    /// Takes the present value for seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.read().version;
    }

    /// Returns when there is a value that was not seen, which counts as seen from then on.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            let mut told = std::pin::pin!(self.shared.waiting.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            {
                let state = self.shared.state.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.senders == 0 {
                    return Err(Gone);
                }
            }
            told.await;
        }
    }

    /// Returns when the value, which may be the present one, is as wanted.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Gone> {
        loop {
            let fits = wanted(&self.borrow_and_update());
            if fits {
                return Ok(());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state.write().receivers += 1;
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.state.write().receivers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::stream::{FuturesUnordered, StreamExt};

    use super::*;

    #[tokio::test]
    async fn a_change_is_told_once_and_the_end_after_the_last_change() {
        let (sender, mut receiver) = channel(1);
        assert!(receiver.changed().now_or_never().is_none(), "the first value is known");
        assert_eq!(sender.send_replace(2), 1);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        let other = sender.clone();
        other.send_replace(3);
        drop((sender, other));
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Gone));
        assert_eq!(receiver.wait_for(|value| *value == 3).await, Ok(()));
        assert_eq!(receiver.wait_for(|value| *value == 4).await, Err(Gone));
    }

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_coming() {
        let sender = Sender::new(0);
        let woken = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut waiting = FuturesUnordered::new();
        for number in 0..32 {
            let (mut receiver, woken) = (sender.subscribe(), Arc::clone(&woken));
            let mut task = Box::pin(async move {
                receiver.wait_for(|value| *value == 1).await.unwrap();
                woken.lock().push(number);
            });
            assert!((&mut task).now_or_never().is_none());
            waiting.push(task);
        }
        assert!(waiting.next().now_or_never().is_none());
        sender.send_replace(1);
        while waiting.next().await.is_some() {}
        assert_eq!(*woken.lock(), (0..32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_tells_knows_whether_anybody_listens() {
        let (sender, receiver) = channel(());
        let second = receiver.clone();
        drop(receiver);
        assert!(!sender.is_closed());
        drop(second);
        assert!(sender.is_closed());
    }
}
