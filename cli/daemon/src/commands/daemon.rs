//! `daemon`: runs the peer until it is told to stop.

use anyhow::{Context, bail};
use cluster_peer::config::{Config, ConsensusMode, ProcessEnvironment, TrustedPeers, ensure_legacy_identity, load};
use cluster_peer::logging;
use cluster_types::{Multiaddr, PeerId, Protocol, VERSION};

use crate::args::{Arguments, DaemonArguments};

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
    let lock = super::lock(&folder)?;
    let mut loaded = load(&folder, &ProcessEnvironment).context("loading the configuration")?;
    for remark in &loaded.remarks {
        tracing::warn!(remark, "configuration");
    }
    if ensure_legacy_identity(&folder, &loaded.config.cluster.identity).context("writing the identity")? {
        eprintln!(
            "NOTICE: identity information extracted from the configuration to {}.",
            folder.identity_file().display()
        );
    }
    apply_flags(&mut loaded.config, daemon);
    if daemon.tracing {
        tracing::warn!(flag = "--tracing", "this flag has no effect in this version yet");
    }
    tracing::info!(version = VERSION, folder = %folder.path().display(), "starting");
    let outcome = cluster_peer::run(loaded.config, daemon.bootstrap());
    drop(lock);
    outcome.context("running the peer")
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
        for peer in daemon.bootstrap().iter().filter_map(peer_of) {
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
