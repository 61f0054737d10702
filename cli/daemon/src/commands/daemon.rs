//! `daemon`: runs the peer until it is told to stop.

use anyhow::{Context, bail};
use cluster_peer::config::{Config, ConsensusMode, ExecutionLock, ProcessEnvironment, TrustedPeers, load};
use cluster_peer::{Peer, PeerEnd, logging};
use cluster_types::{Multiaddr, PeerId, Protocol, VERSION};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::args::{Arguments, DaemonArguments};
use crate::signals::Signals;

/// The line that says that a peer serves.
const READY: &str = "** IPFS Cluster is READY **";

/// Runs the command.
pub(crate) fn run(daemon: &DaemonArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = arguments.folder()?;
    if !folder.config_file().exists() {
        bail!(
            "loading the configuration: {} does not exist: run `ipfs-cluster-service init` first",
            folder.config_file().display()
        );
    }
    let lock = ExecutionLock::acquire(&folder).context("starting the peer")?;
    let mut loaded = load(&folder, &ProcessEnvironment).context("loading the configuration")?;
    for remark in &loaded.remarks {
        tracing::warn!(remark, "configuration");
    }
    apply_flags(&mut loaded.config, daemon);
    for (flag, given) in [("--stats", daemon.stats), ("--tracing", daemon.tracing)] {
        if given {
            tracing::warn!(flag, "this flag has no effect in this version yet");
        }
    }
    tracing::info!(version = VERSION, folder = %folder.path().display(), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = Signals::listen().context("listening for signals")?;
        let peer = run_peer(loaded.config, daemon.bootstrap.clone(), stop.clone());
        tokio::select! {
            outcome = peer => outcome,
            never = signals.watch(stop) => match never {},
        }
    });
    drop(runtime);
    drop(lock);
    outcome.context("running the peer")
}

/// Runs the peer, in one cluster after the other when it joins a larger one; returns when it has stopped: after `stop` is
/// cancelled and everything is in order, or with the error that ended it.
async fn run_peer(config: Config, bootstrap: Vec<Multiaddr>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut end = run_once(config.clone(), bootstrap, stop.clone()).await?;
    while let PeerEnd::Joins(addresses) = end {
        end = match run_once(config.clone(), addresses, stop.clone()).await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "joining the other cluster failed; this peer goes on by itself"
                );
                run_once(config.clone(), Vec::new(), stop.clone()).await?
            }
        };
    }
    Ok(())
}

/// Builds and starts the peer; returns when it has stopped.
async fn run_once(config: Config, bootstrap: Vec<Multiaddr>, stop: CancellationToken) -> anyhow::Result<PeerEnd> {
    let peer = tokio::select! {
        started = Peer::start(config, &bootstrap) => started?,
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
    Ok(outcome?)
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

/// Starts logging as the global flags ask.
pub(crate) fn start_logging(arguments: &Arguments) -> anyhow::Result<()> {
    let levels = if arguments.debug {
        logging::debug_levels()
    } else {
        logging::parse_levels(&arguments.loglevel).context("parsing --loglevel")?
    };
    logging::start(levels).context("starting the log")
}

/// What flags ask for beyond the configuration.
fn apply_flags(config: &mut Config, daemon: &DaemonArguments) {
    config.cluster.leave_on_shutdown |= daemon.leave;
    config.telemetry.enabled |= daemon.stats;
    config.telemetry.tracing_enabled |= daemon.tracing;
    if daemon.no_trust {
        return;
    }
    if let ConsensusMode::Crdt { trusted: TrustedPeers::Only(trusted), .. } = &mut config.consensus.mode {
        for peer in daemon.bootstrap.iter().filter_map(peer_of) {
            if !trusted.contains(&peer) {
                trusted.push(peer);
            }
        }
    }
}

/// The peer that an address leads to, if it says so.
fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    if let Protocol::P2p(peer) = address.iter().last()? { Some(peer) } else { None }
}
