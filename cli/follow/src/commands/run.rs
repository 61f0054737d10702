//! `run`: follows the cluster until it is told to stop.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_peer::config::{
    ConfigError, ConfigFolder, IpfsConfig, Loaded, ProcessEnvironment, load_follower, source_of,
};
use cluster_peer::{logging, node_answers};
use tokio::time::{Instant, sleep};

use crate::args::RunArguments;

/// How long the IPFS node is waited for.
const NODE_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(run: &RunArguments, cluster: &str, folder: &ConfigFolder) -> anyhow::Result<ExitCode> {
    if let Some(url) = &run.init
        && !super::init::write(url, &run.gateway.gateway, cluster, folder)?
    {
        println!(
            "The cluster \"{cluster}\" is followed already; its configuration stays. To begin anew, remove {} first.\n",
            folder.path().display()
        );
    }
    if !super::is_initialised(folder) {
        super::say_not_initialised(cluster);
        return Ok(ExitCode::FAILURE);
    }
    println!("Starting the IPFS Cluster follower peer for \"{cluster}\".\nCTRL-C to stop it.");
    println!("Checking if IPFS is online (will wait for 2 minutes)...");
    let levels = logging::parse_levels("info,restapilog:error").context("parsing the levels of the log")?;
    logging::start(levels).context("starting the log")?;
    let lock = super::lock(folder)?;
    let loaded = super::runtime()?.block_on(wait_for_node(folder))?;
    for remark in &loaded.remarks {
        tracing::warn!(remark, "configuration");
    }
    let outcome = cluster_peer::run(loaded.config, Vec::new());
    drop(lock);
    outcome.context("running the peer")?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration, once the node answers that it names.
async fn wait_for_node(folder: &ConfigFolder) -> anyhow::Result<Loaded> {
    let begun = Instant::now();
    let loaded = load_once_served(folder, begun + NODE_TIMEOUT).await?;
    // An embedded node starts with the peer.
    if let IpfsConfig::Kubo(kubo) = &loaded.config.ipfs {
        while !node_answers(kubo).await {
            if begun.elapsed() >= NODE_TIMEOUT {
                bail!("timed out waiting for IPFS to be available");
            }
            sleep(PAUSE).await;
        }
    }
    Ok(loaded)
}

/// What a gateway serves comes when the node behind it runs; everything else comes at once or not at all.
async fn load_once_served(folder: &ConfigFolder, until: Instant) -> anyhow::Result<Loaded> {
    let source = source_of(folder).context("reading the configuration")?.unwrap_or_default();
    let from_ipfs = source.contains("/ipns/") || source.contains("/ipfs/");
    loop {
        match load_follower(folder, &ProcessEnvironment) {
            Err(ConfigError::SourceUnreachable { .. }) if from_ipfs && Instant::now() < until => sleep(PAUSE).await,
            loaded => {
                return loaded.with_context(|| format!("reading the configurations in {}", folder.path().display()));
            }
        }
    }
}
