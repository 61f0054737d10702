//! Streams what a long job produces, over a bounded channel.
//!
//! **Invariant:** a job that is stopped half-way never looks like one that came to its end: the end is what the job
//! returns. A reader that goes away, or a store that closes, ends the job at its next item.
//! **Invariant:** a reader that takes nothing for [`PATIENCE`] ends the job too, so readers that stand still never
//! keep the others out for longer than that.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::StateError;
use cluster_types::BoxError;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, watch};

use crate::blocking::{Door, Kind};

/// Messages waiting for the reader: one being read, one ready.
const WAITING: usize = 2;
/// How long a reader may take nothing while items wait for it: far longer than any client or peer needs for the
/// 256 KiB of a chunk of rows or the 1 MiB of a chunk of a snapshot, and a job under way holds up a compaction.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Where a job puts what it produces.
pub(crate) struct Outlet<T> {
    sender: mpsc::Sender<T>,
    closing: watch::Receiver<bool>,
    patience: Duration,
    runtime: Handle,
}

impl<T> Outlet<T> {
    /// Hands over one item; waits while the reader is behind.
    pub(crate) fn send(&mut self, item: T) -> Result<(), Stop> {
        let Self { sender, closing, patience, runtime } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Err(Stop::Failed(StateError::Closed)),
                sent = tokio::time::timeout(*patience, sender.send(item)) => match sent {
                    Ok(sent) => sent.map_err(|_gone| Stop::ReaderGone),
                    Err(_elapsed) => Err(Stop::Failed(StateError::SlowReader)),
                },
            }
        })
    }

    /// Ends a job that gathers its next item for somebody who has gone.
    pub(crate) fn check_reader(&self) -> Result<(), Stop> {
        if self.sender.is_closed() { Err(Stop::ReaderGone) } else { Ok(()) }
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
    from_patient_job(door, whole, PATIENCE, job)
}

fn from_patient_job<D, T, F>(
    door: Arc<Door<D>>,
    whole: Arc<RwLock<()>>,
    patience: Duration,
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
        let (sender, mut items) = mpsc::channel(WAITING);
        let mut outlet = Outlet { sender, closing: door.closing(), patience, runtime: Handle::current() };
        // The job waits for nobody once it has ended: the reader fetches how it ended when it has read the items.
        let running = tokio::task::spawn_blocking(move || job(entered.inside(), whole, &mut outlet));
        while let Some(item) = items.recv().await {
            yield item;
        }
        match running.await {
            Ok(Ok(())) => {}
            Ok(Err(Stop::Failed(error))) => Err(error)?,
            // It cannot be: the reader is here.
            Ok(Err(Stop::ReaderGone)) => Err(broken_off("the job missed its reader".into()))?,
            Err(panic) => Err(broken_off(panic.into()))?,
        }
    })
}

fn broken_off(cause: BoxError) -> StateError {
    StateError::Io { operation: "finish a scan", cause }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::blocking::LONG_JOBS;

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

    #[tokio::test]
    async fn readers_that_stand_still_keep_nobody_out_and_are_told() {
        let door = Arc::new(Door::new(()));
        let mut readers = Vec::new();
        for _reader in 0..LONG_JOBS {
            let whole = Arc::new(RwLock::new(()));
            let patience = Duration::from_millis(50);
            let mut stream = from_patient_job(Arc::clone(&door), whole, patience, |(), _whole, outlet| {
                loop {
                    outlet.send(0_u8)?;
                }
            });
            assert!(stream.next().await.unwrap().is_ok());
            readers.push(stream);
        }
        // All places are free only when all those scans have ended.
        let mut places = Vec::new();
        for _place in 0..LONG_JOBS {
            places.push(tokio::time::timeout(Duration::from_secs(60), door.enter(Kind::Long)).await.unwrap().unwrap());
        }
        for reader in readers {
            let rest: Vec<_> = reader.collect().await;
            assert!(matches!(rest.last(), Some(Err(StateError::SlowReader))));
        }
    }

    #[tokio::test]
    async fn a_reader_that_has_enough_leaves_its_place_while_the_next_item_is_gathered() {
        let door = Arc::new(Door::new(()));
        for _reader in 0..=LONG_JOBS {
            let mut stream = from_job(Arc::clone(&door), Arc::new(RwLock::new(())), |(), _whole, outlet| {
                outlet.send(0_u8)?;
                loop {
                    outlet.check_reader()?;
                    std::thread::yield_now();
                }
            });
            let first = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.unwrap();
            assert!(first.unwrap().is_ok());
        }
    }
}
