//! Runs a peer from its start to its orderly end, as the programs do.

use std::io;
use std::time::Duration;

use cluster_types::{ErrorChain, Multiaddr, VERSION};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::peer::{Peer, PeerEnd, PeerError};
use crate::signals::Signals;

/// The line that says that a peer serves.
const READY: &str = "** IPFS Cluster is READY **";
/// How long a peer goes on by itself after a join that failed, before it tries another: doubled with each …
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

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
    let mut next = start_once(&config, &bootstrap, &stop).await?;
    let mut failed = 0;
    while let Some(peer) = next {
        let (PeerEnd::Joins(addresses), left) = serve(peer, &stop).await? else { break };
        next = match start_once(&config, &addresses, &stop).await {
            // Nobody was reached at those addresses, or none of them is of another cluster.
            Ok(Some(peer)) if left.is_some() && peer.cluster_id().await == left => {
                failed += 1;
                Some(put_off(peer, failed))
            }
            Ok(joined) => {
                failed = 0;
                joined
            }
            Err(error) => {
                tracing::warn!(
                    error = %ErrorChain(&error),
                    "joining the other cluster failed; this peer goes on by itself"
                );
                failed += 1;
                start_once(&config, &[], &stop).await?.map(|peer| put_off(peer, failed))
            }
        };
    }
    Ok(())
}

/// Lets a peer go on by itself that could not join another cluster.
fn put_off(peer: Peer, failed: u32) -> Peer {
    let pause = pause_after(failed);
    tracing::info!(?pause, failed, "this peer tries to join no other cluster before the pause is over");
    peer.stay(pause);
    peer
}

/// How long a peer goes on by itself after so many joins in a row that failed: each of them stops and starts it.
fn pause_after(failed: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE)
}

/// Builds and starts the peer; none if it was stopped meanwhile.
async fn start_once(
    config: &Config,
    bootstrap: &[Multiaddr],
    stop: &CancellationToken,
) -> Result<Option<Peer>, PeerError> {
    tokio::select! {
        started = Box::pin(Peer::start(config.clone(), bootstrap)) => started.map(Some),
        // As if it had been killed: what was begun (joining, too) goes on at the next start.
        () = stop.cancelled() => Ok(None),
    }
}

/// Returns when the peer has stopped: why, and to which cluster it belonged.
async fn serve(peer: Peer, stop: &CancellationToken) -> Result<(PeerEnd, Option<u64>), PeerError> {
    let outcome = tokio::select! {
        outcome = async {
            announce_listening(&peer);
            peer.ready().await;
            announce_ready(&peer);
            std::future::pending().await
        } => outcome,
        outcome = peer.ended() => outcome,
        () = stop.cancelled() => Ok(PeerEnd::Removed),
    };
    notify(&[NotifyState::Stopping]);
    let cluster = peer.cluster_id().await;
    peer.stop().await;
    outcome.map(|end| (end, cluster))
}

/// Says where the swarm listens, in the words that scripts look for.
fn announce_listening(peer: &Peer) {
    let addresses = peer.swarm_addresses().iter().map(|address| format!("\n        {address}")).collect::<String>();
    tracing::info!("IPFS Cluster v{VERSION} listening on:{addresses}");
}

/// Tells whoever waits for it that the peer serves: people, scripts, systemd.
///
/// The line stands on the standard output and in the log: scripts look for it in either.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce_ready(peer: &Peer) {
    for address in peer.api_addresses() {
        tracing::info!(%address, "the REST API is served");
    }
    for address in peer.proxy_addresses() {
        tracing::info!(%address, "the IPFS proxy is served");
    }
    println!("{READY}");
    tracing::info!("{READY}");
    notify(&[NotifyState::Ready]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_join_that_fails_doubles_the_pause_up_to_an_hour() {
        let minutes = |failed| pause_after(failed).as_secs() / 60;
        assert_eq!([1, 2, 3, 6, 7, 1_000].map(minutes), [1, 2, 4, 32, 60, 60]);
    }
}
