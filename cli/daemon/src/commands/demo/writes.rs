//! Writes that go on while the leader dies.
//!
//! A few writers share a queue of pins. A write that fails is repeated: nothing tells whether it took effect, and
//! pinning twice is the same as once. What counts afterwards is the list of writes that were answered with OK.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_types::Cid;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api;
use super::peers::Peer;

/// How long one write may be repeated: an election takes a few seconds.
const REPEAT_FOR: Duration = Duration::from_secs(90);
/// The pause before a write is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// What came of the writes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Those that were acknowledged.
    pub(super) acknowledged: Vec<Cid>,
    /// How many were acknowledged when the leader was killed.
    pub(super) before_the_kill: usize,
    /// Attempts that failed and were repeated.
    pub(super) repeated: usize,
}

/// What the writers share.
struct Work {
    to: SocketAddr,
    queue: Mutex<VecDeque<Cid>>,
    done: Mutex<Outcome>,
    progress: watch::Sender<usize>,
}

/// Pins all of `cids` through `to`, and kills `leader` when `kill_after` of them are acknowledged.
pub(super) async fn pin_while_killing(
    cids: Vec<Cid>,
    to: SocketAddr,
    leader: &mut Peer,
    kill_after: usize,
) -> anyhow::Result<Outcome> {
    let (progress, mut seen) = watch::channel(0);
    let work = Work { to, queue: Mutex::new(cids.into()), done: Mutex::default(), progress };
    let killer = async {
        seen.wait_for(|count| *count >= kill_after).await.context("the writers ended early")?;
        leader.kill().await?;
        work.outcome().before_the_kill = *seen.borrow();
        anyhow::Ok(())
    };
    tokio::try_join!(killer, work.write(), work.write(), work.write(), work.write())?;
    work.done.into_inner().context("a writer panicked")
}

impl Work {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.done.lock().expect("nobody panics while holding this lock: pushing and counting cannot fail")
    }

    fn next(&self) -> Option<Cid> {
        self.queue.lock().expect("nobody panics while holding this lock: popping cannot fail").pop_front()
    }

    async fn write(&self) -> anyhow::Result<()> {
        while let Some(cid) = self.next() {
            self.write_one(&cid).await?;
            let count = {
                let mut outcome = self.outcome();
                outcome.acknowledged.push(cid);
                outcome.acknowledged.len()
            };
            self.progress.send_replace(count);
        }
        Ok(())
    }

    async fn write_one(&self, cid: &Cid) -> anyhow::Result<()> {
        let deadline = Instant::now() + REPEAT_FOR;
        loop {
            let Err(error) = api::pin(self.to, cid, "written-in-a-crash").await else { return Ok(()) };
            if Instant::now() > deadline {
                bail!("pinning {cid} failed for {REPEAT_FOR:?}, at last with: {error:#}");
            }
            self.outcome().repeated += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}
