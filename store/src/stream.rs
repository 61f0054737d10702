//! Streams what a long job produces, over a bounded channel.
//!
//! **Invariant:** a job that is stopped half-way never looks like one that came to its end: the end is a message.
//! A reader that goes away, or a store that closes, ends the job at its next message.

use std::sync::Arc;

use cluster_core::ports::StateError;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, watch};

use crate::blocking::{Door, Kind};

/// Messages waiting for the reader: one being read, one ready.
const WAITING: usize = 2;

/// Why a job ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody reads any more.
    ReaderGone,
    /// It failed.
    Failed(StateError),
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::Failed(error)
    }
}

enum Message<T> {
    Item(T),
    End,
    Failed(StateError),
}

/// Where a job puts what it produces.
pub(crate) struct Outlet<T> {
    sender: mpsc::Sender<Message<T>>,
    closing: watch::Receiver<bool>,
    runtime: Handle,
}

impl<T> Outlet<T> {
    /// Hands over one item; waits while the reader is behind.
    pub(crate) fn send(&mut self, item: T) -> Result<(), Stop> {
        self.message(Message::Item(item))
    }

    fn message(&mut self, message: Message<T>) -> Result<(), Stop> {
        let Self { sender, closing, runtime } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Err(Stop::Failed(StateError::Closed)),
                sent = sender.send(message) => sent.map_err(|_gone| Stop::ReaderGone),
            }
        })
    }
}

/// A guard that readers of the state hold until they have fixed what they read.
pub(crate) type WholeGuard = OwnedRwLockReadGuard<()>;

/// Runs `job` behind the door when the stream is first read, and streams its items.
pub(crate) fn from_job<D, T, F>(
    door: Arc<Door<D>>,
    whole: Arc<RwLock<()>>,
    job: F,
) -> BoxStream<'static, Result<T, StateError>>
where
    D: Send + Sync + 'static,
    T: Send + 'static,
    F: FnOnce(&D, WholeGuard, &mut Outlet<T>) -> Result<(), Stop> + Send + 'static,
{
    Box::pin(async_stream::try_stream! {
        let entered = door.enter(Kind::Long).await?;
        let whole = whole.read_owned().await;
        let (sender, mut messages) = mpsc::channel(WAITING);
        let mut outlet = Outlet { sender, closing: door.closing(), runtime: Handle::current() };
        let running = tokio::task::spawn_blocking(move || {
            let last = match job(entered.inside(), whole, &mut outlet) {
                Ok(()) => Message::End,
                Err(Stop::Failed(error)) => Message::Failed(error),
                Err(Stop::ReaderGone) => return,
            };
            drop(entered);
            // A reader that went away does not need to know.
            let _gone = outlet.runtime.block_on(outlet.sender.send(last));
        });
        let mut running = Some(running);
        loop {
            match messages.recv().await {
                Some(Message::Item(item)) => yield item,
                Some(Message::End) => break,
                Some(Message::Failed(error)) => Err(error)?,
                None => {
                    let end = match running.take() {
                        Some(running) => running.await.err(),
                        None => None,
                    };
                    Err(broken_off(end))?;
                }
            }
        }
    })
}

fn broken_off(panic: Option<tokio::task::JoinError>) -> StateError {
    let cause = panic.map_or_else(|| "the job ended without a word".into(), Into::into);
    StateError::Io { operation: "finish a scan", cause }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_is_no_end() {
        let whole = Arc::new(RwLock::new(()));
        let mut stream = from_job(Arc::new(Door::new(())), whole, |(), _whole, outlet: &mut Outlet<u8>| {
            outlet.send(1)?;
            panic!("a bug")
        });
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert!(stream.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_job() {
        let door = Arc::new(Door::new(()));
        let mut stream = from_job(Arc::clone(&door), Arc::new(RwLock::new(())), |(), _whole, outlet| {
            loop {
                outlet.send(0_u8)?;
            }
        });
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        door.close(|()| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn closing_ends_a_job_whose_reader_sleeps() {
        let door = Arc::new(Door::new(()));
        let mut stream = from_job(Arc::clone(&door), Arc::new(RwLock::new(())), |(), _whole, outlet| {
            loop {
                outlet.send(0_u8)?;
            }
        });
        assert!(stream.next().await.unwrap().is_ok());
        door.close(|()| Ok(())).await.unwrap();
        let rest: Vec<_> = stream.collect().await;
        assert!(matches!(rest.last(), Some(Err(StateError::Closed))));
    }
}
