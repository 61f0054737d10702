//! How many pins a second are acknowledged, and how often peers flush for them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::counts::{self, Counts};
use crate::load::{self, Holders, Load};
use crate::report::{self, Goal};
use crate::{PEERS, disk, setting, start};

/// How long the bare loop runs.
const BARE_TIME: Duration = Duration::from_secs(5);
/// Clients of the second measurement.
const CROWD: usize = 64;

/// Measures and prints. Every cluster is new, so that what its peers counted belongs to one measurement.
pub(crate) async fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!(
        "speed: {PEERS} peers with embedded nodes share this machine, and its disk at {}",
        folder.path().display()
    );
    let before = disk::syncs_per_second(folder.path(), BARE_TIME)?;

    let cluster = start().await?;
    let numbers = Arc::default();
    let leader = cluster.leader().await.context("nobody leads")?;
    let one = load::run(&cluster, everywhere(1, vec![leader])?, &numbers).await?;
    let follower = load::run(&cluster, everywhere(1, vec![(leader + 1) % PEERS])?, &numbers).await?;
    let one_counts = Counts::of_stopped(&cluster).await?;
    drop(cluster);

    let cluster = start().await?;
    let crowd = load::run(&cluster, everywhere(CROWD, (0..PEERS).collect())?, &Arc::default()).await?;
    let crowd_counts = Counts::of_stopped(&cluster).await?;
    drop(cluster);

    let after = disk::syncs_per_second(folder.path(), BARE_TIME)?;
    let bare = f64::midpoint(before, after);
    let loops = format!("{before:.0} and {after:.0} per second, mean {bare:.0}");
    report::line("bare append+fdatasync, before and after", &loops);
    let ratio = one.rate() / bare;
    report::judged("one client, at the leader", &one.pace(), ratio, "of the bare loop", Goal::AtLeast(0.5));
    report::line(
        "one client, at a follower",
        &report::compared(&follower.pace(), follower.rate() / bare, "of the bare loop"),
    );
    let crowd_name = format!("{CROWD} clients, at all peers");
    let ratio = crowd.rate() / one.rate();
    report::judged(&crowd_name, &crowd.pace(), ratio, "times one client", Goal::AtLeast(15.0));
    report::line("", &report::compared("", crowd.rate() / bare, "of the bare loop"));
    println!("flushes of each peer's log");
    counts::print("one client", &one_counts, one.pins() + follower.pins());
    counts::print(&crowd_name, &crowd_counts, crowd.pins());
    Ok(())
}

/// Clients whose pins every peer holds, for as long as a speed is measured.
fn everywhere(clients: usize, peers: Vec<usize>) -> Result<Load> {
    let time = Duration::from_secs(setting("CLUSTER_BENCH_SECONDS", 10)?);
    Ok(Load { clients, peers, holders: Holders::All, time, up_to: u64::MAX })
}
