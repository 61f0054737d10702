//! Runs a peer from its start to its orderly end, as the programs do.

use std::io;

use cluster_types::{ErrorChain, Multiaddr};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::peer::{Peer, PeerEnd, PeerError};
use crate::signals::Signals;

/// The line that says that a peer serves.
const READY: &str = "** IPFS Cluster is READY **";

/// A peer did not run, or not to an orderly end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The system refused what every program needs.
    #[error("the system refuses {what}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Its words.
        #[source]
        cause: io::Error,
    },
    /// The peer could not be started, or ended by itself.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Runs a peer until a signal says otherwise, or it ends by itself.
pub fn run(config: Config, bootstrap: Vec<Multiaddr>) -> Result<(), RunError> {
    let refused = |what| move |cause| RunError::System { what, cause };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(refused("a runtime"))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = Signals::listen().map_err(refused("to hand over signals"))?;
        let peer = run_peer(config, bootstrap, stop.clone());
        tokio::select! {
            outcome = peer => outcome.map_err(RunError::from),
            never = signals.watch(stop) => match never {},
        }
    })
}

/// Runs the peer, in one cluster after the other when it joins a larger one; returns when it has stopped: after `stop` is
/// cancelled and everything is in order, or with the error that ended it.
async fn run_peer(config: Config, bootstrap: Vec<Multiaddr>, stop: CancellationToken) -> Result<(), PeerError> {
    let mut end = run_once(config.clone(), bootstrap, stop.clone()).await?;
    while let PeerEnd::Joins(addresses) = end {
        end = match run_once(config.clone(), addresses, stop.clone()).await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(
                    error = %ErrorChain(&error),
                    "joining the other cluster failed; this peer goes on by itself"
                );
                run_once(config.clone(), Vec::new(), stop.clone()).await?
            }
        };
    }
    Ok(())
}

/// Builds and starts the peer; returns when it has stopped.
async fn run_once(config: Config, bootstrap: Vec<Multiaddr>, stop: CancellationToken) -> Result<PeerEnd, PeerError> {
    let peer = tokio::select! {
        started = Box::pin(Peer::start(config, &bootstrap)) => started?,
        // As if it had been killed: what was begun (joining, too) goes on at the next start.
        () = stop.cancelled() => return Ok(PeerEnd::Removed),
    };
    let outcome = tokio::select! {
        outcome = async {
            peer.ready().await;
            announce_ready(&peer);
            std::future::pending().await
        } => outcome,
        outcome = peer.ended() => outcome,
        () = stop.cancelled() => Ok(PeerEnd::Removed),
    };
    notify(&[NotifyState::Stopping]);
    peer.stop().await;
    outcome
}

/// Tells whoever waits for it that the peer serves: people, scripts, systemd.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce_ready(peer: &Peer) {
    for address in peer.api_addresses() {
        tracing::info!(%address, "the REST API is served");
    }
    println!("{READY}");
    notify(&[NotifyState::Ready]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
