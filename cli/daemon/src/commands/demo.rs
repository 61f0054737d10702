//! `demo`: a whole cluster at work on this machine, told step by step and checked at every step.
//!
//! It starts real peers as processes of this executable, each with an IPFS node inside, in a temporary folder and on
//! free ports of the loopback interface. Every step checks what it claims; the first claim that does not hold ends
//! the demo with exit code 1, and leaves the folder with all logs behind.

mod api;
mod content;
mod http;
mod peers;
mod reading;
mod report;
mod story;
mod writes;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::DemoArguments;
use cluster_peer::Signals;
use peers::Cluster;
use report::Report;

/// Exit code after a signal: what shells use for an interrupted program.
const INTERRUPTED: u8 = 130;

/// Runs the command.
pub(crate) fn run(demo: &DemoArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(perform(demo))
}

async fn perform(demo: &DemoArguments) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("listening for signals")?;
    let folder = tempfile::Builder::new().prefix("ipfs-cluster-demo-").tempdir().context("creating a folder")?;
    let mut cluster = Cluster::new(folder.path(), demo.peers).context("preparing the peers")?;
    let mut report = Report::new(demo.peers);
    let outcome = tokio::select! {
        outcome = story::tell(demo, folder.path(), &mut cluster, &mut report) => Some(outcome),
        () = signals.next() => None,
    };
    let code = match outcome {
        None => {
            println!("\nInterrupted; stopping the peers.");
            ExitCode::from(INTERRUPTED)
        }
        Some(Ok(())) => {
            report.summary();
            if demo.keep {
                report.invitation(folder.path(), &cluster);
                signals.next().await;
            }
            println!("\nStopping the peers.");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            report.failure(&error, &cluster);
            cluster.stop().await;
            let kept = folder.keep();
            eprintln!("\nEverything the peers wrote is kept in {}", kept.display());
            return Ok(ExitCode::FAILURE);
        }
    };
    cluster.stop().await;
    folder.close().context("removing the folder")?;
    Ok(code)
}
