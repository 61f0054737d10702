//! How fast content goes between an embedded node and a Kubo, in both directions, beside what goes from Kubo to Kubo on the same
//! machine. Each side that fetches is connected to the one that has it, and to nobody else.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_tests::wait;
use serde_json::Value;
use tokio::time::Instant;

use crate::report::{self, Goal};
use crate::{add, setting};

/// How much of the pace between two Kubos is expected.
const GOAL: f64 = 0.8;
/// Longer than any machine takes.
const LIMIT: Duration = Duration::from_secs(1800);

/// Measures and prints.
pub(crate) async fn measure() -> Result<()> {
    let bytes = setting("CLUSTER_BENCH_BITSWAP_BYTES", 1 << 30)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("large");
    add::write_large(&file, bytes)?;
    println!("bitswap: one file of {bytes} bytes, each way");
    let (Some(first), Some(second), Some(third)) =
        (KuboDaemon::start().await, KuboDaemon::start().await, KuboDaemon::start().await)
    else {
        println!("  there is no Kubo to measure with");
        return Ok(());
    };
    let cid = added(&first, &file)?;
    let between_kubos = fetched_by(&second, &address_of(&first)?, &cid)?;
    drop(second);
    tell("Kubo to Kubo", bytes, between_kubos, None);
    let cluster = ProcessCluster::start(&[NodeKind::Embedded]).await?;
    let to_embedded = pinned(&cluster, &address_of(&first)?, &cid).await?;
    drop(first);
    tell("Kubo to the embedded node", bytes, to_embedded, Some(between_kubos));
    let id: Value = cluster.get(0, "/id").await?;
    let embedded = id["ipfs"]["addresses"][0].as_str().context("the embedded node has an address")?.to_owned();
    let to_kubo = fetched_by(&third, &embedded, &cid)?;
    tell("the embedded node to Kubo", bytes, to_kubo, Some(between_kubos));
    Ok(())
}

fn tell(what: &str, bytes: u64, time: Duration, beside: Option<Duration>) {
    let seconds = time.as_secs_f64();
    let pace = format!("{:.1} MB/s in {seconds:.1} s", bytes as f64 / seconds / 1e6);
    match beside {
        Some(other) => {
            report::judged(what, &pace, other.as_secs_f64() / seconds, "times Kubo to Kubo", Goal::AtLeast(GOAL));
        }
        None => report::line(what, &pace),
    }
}

/// What a command says.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn added(kubo: &KuboDaemon, file: &Path) -> Result<String> {
    said(kubo.command().args(["add", "-Q"]).arg(file))
}

/// Where a Kubo is reached.
fn address_of(kubo: &KuboDaemon) -> Result<String> {
    let id: Value = serde_json::from_str(&said(kubo.command().args(["id", "--enc=json"]))?)?;
    let addresses = id["Addresses"].as_array().context("a Kubo has addresses")?;
    let mut tcp = addresses.iter().filter_map(Value::as_str).filter(|address| address.contains("/tcp/"));
    Ok(tcp.find(|address| !address.contains("/ws")).context("one of them is TCP")?.to_owned())
}

/// How long a Kubo takes to pin what the node at `address` has.
fn fetched_by(kubo: &KuboDaemon, address: &str, cid: &str) -> Result<Duration> {
    said(kubo.command().args(["swarm", "connect", address]))?;
    let began = Instant::now();
    said(kubo.command().args(["pin", "add", cid]))?;
    Ok(began.elapsed())
}

/// How long a peer takes to pin what the node at `origin` has.
async fn pinned(cluster: &ProcessCluster, origin: &str, cid: &str) -> Result<Duration> {
    let began = Instant::now();
    let url = reqwest::Url::parse_with_params(&cluster.url(0, &format!("/pins/{cid}")), [("origins", origin)])?;
    let answer = cluster.http(0).post(url).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    wait::until("the pin", LIMIT, || async {
        let status: Value = cluster.get(0, &format!("/pins/{cid}")).await.map_err(|error| error.to_string())?;
        let peers = status["peer_map"].as_object().into_iter().flatten();
        let statuses: Vec<&Value> = peers.map(|(_, peer)| &peer["status"]).collect();
        if statuses == ["pinned"] { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    Ok(began.elapsed())
}
