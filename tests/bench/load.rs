//! Clients that pin tiny blocks through REST, each one request after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::content::{inline_cid, random_inline_cid};
use cluster_tests::process::ProcessCluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Who holds what is pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holders {
    /// Every peer.
    All,
    /// One peer for each pin, in turn.
    One,
    /// The first peer; and the CIDs are as long and as random as usual ones.
    First,
}

/// What clients do to a cluster.
#[derive(Debug)]
pub(crate) struct Load {
    /// How many there are.
    pub(crate) clients: usize,
    /// The peers they ask: the first client the first peer, and so on in turn.
    pub(crate) peers: Vec<usize>,
    /// Who holds the pins.
    pub(crate) holders: Holders,
    /// When they stop.
    pub(crate) time: Duration,
    /// With which number of a pin they stop, if that is sooner.
    pub(crate) up_to: u64,
}

/// What clients got done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How long each acknowledged pin took, sorted.
    waits: Vec<Duration>,
    /// How long all of them took.
    took: Duration,
}

impl Done {
    /// Acknowledged pins.
    pub(crate) fn pins(&self) -> usize {
        self.waits.len()
    }

    /// Acknowledged pins per second.
    pub(crate) fn rate(&self) -> f64 {
        self.waits.len() as f64 / self.took.as_secs_f64()
    }

    /// The rate, and how long pins took, in words.
    pub(crate) fn pace(&self) -> String {
        format!("{:.0} pins/s ({:.1} ms; 99 %: {:.1} ms)", self.rate(), self.percentile(50), self.percentile(99))
    }

    /// The wait that so many per cent of the pins did not exceed, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let place = (self.waits.len() * percent / 100).min(self.waits.len().saturating_sub(1));
        self.waits.get(place).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1000.0)
    }
}

/// Lets the clients pin; `numbers` gives every pin another CID. A request that fails ends the run.
pub(crate) async fn run(cluster: &Arc<ProcessCluster>, load: Load, numbers: &Arc<AtomicU64>) -> Result<Done> {
    let started = Instant::now();
    let end = started + load.time;
    let mut clients = JoinSet::new();
    for peer in load.peers.into_iter().cycle().take(load.clients) {
        let (cluster, numbers) = (Arc::clone(cluster), Arc::clone(numbers));
        clients.spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < end {
                let next = |number| (number < load.up_to).then_some(number + 1);
                let Ok(number) = numbers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) else { break };
                let asked = Instant::now();
                pin(&cluster, peer, number, load.holders).await?;
                waits.push(asked.elapsed());
            }
            anyhow::Ok(waits)
        });
    }
    let mut done = Done::default();
    while let Some(waits) = clients.join_next().await {
        done.waits.extend(waits??);
    }
    done.took = started.elapsed();
    done.waits.sort_unstable();
    ensure!(!done.waits.is_empty(), "not a single pin was acknowledged");
    Ok(done)
}

/// Pins one block and reads the answer to its end, so that the connection is used again.
pub(crate) async fn pin(cluster: &ProcessCluster, peer: usize, number: u64, holders: Holders) -> Result<()> {
    let cid = if matches!(holders, Holders::First) { random_inline_cid(number) } else { inline_cid(number) };
    let options = match holders {
        Holders::All => "replication-min=-1&replication-max=-1".to_owned(),
        Holders::One => {
            let turn = usize::try_from(number)? % cluster.peers.len();
            format!("replication-min=1&replication-max=1&user-allocations={}", cluster.peers[turn].id())
        }
        Holders::First => {
            format!("replication-min=1&replication-max=1&user-allocations={}&name=pin-{number}", cluster.peers[0].id())
        }
    };
    let answer = cluster.http.post(cluster.url(peer, &format!("/pins/{cid}?{options}"))).send().await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status.is_success(), "pinning {cid} at peer {peer}: {status}: {body}");
    Ok(())
}
