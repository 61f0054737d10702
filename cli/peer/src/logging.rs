//! What is logged, and where: lines on standard error, filtered by level and component.
//!
//! Components have the names that operators of the original know; each stands for the modules that do its work here.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What is logged of libraries unless somebody asks for more.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

/// Libraries that warn of what we take into account: gossip that a peer does not take off our hands is dropped, by the
/// thousand in a cut, and whoever misses it asks.
const NOISY: [&str; 1] = ["libp2p_gossipsub"];

/// Packages of this project, as they stand in log targets.
const OWN_TARGETS: [&str; 10] = [
    "cluster_types",
    "cluster_core",
    "cluster_store",
    "cluster_net",
    "cluster_ipfs",
    "cluster_api",
    "cluster_client",
    "cluster_peer",
    "ipfs_cluster_service",
    "ipfs_cluster_follow",
];

/// A component's name, and the targets it stands for; none where nothing of its kind exists here.
const COMPONENTS: [(&str, &[&str]); 30] = [
    ("cluster", &["cluster_core", "cluster_peer"]),
    ("restapi", &["cluster_api"]),
    ("restapilog", &[cluster_api::ACCESS_LOG]),
    ("pinsvcapi", &["cluster_api::pinsvc"]),
    ("pinsvcapilog", &["cluster_api::pinsvc::access"]),
    ("ipfsproxy", &["cluster_api::proxy"]),
    ("ipfsproxylog", &["cluster_api::proxy::access"]),
    ("ipfshttp", &["cluster_ipfs"]),
    ("monitor", &["cluster_core::monitor"]),
    ("dsstate", &["cluster_store"]),
    ("raft", &["cluster_core::consensus", "openraft"]),
    ("crdt", &["cluster_core::consensus"]),
    ("pintracker", &["cluster_core::tracker"]),
    ("diskinfo", &["cluster_core::monitor"]),
    ("tags", &["cluster_core::monitor"]),
    ("apitypes", &["cluster_types"]),
    ("config", &["cluster_peer::config"]),
    ("shardingdags", &["cluster_core::add"]),
    ("singledags", &["cluster_core::add"]),
    ("adder", &["cluster_core::add"]),
    ("optracker", &["cluster_core::tracker"]),
    ("pstoremgr", &["cluster_net::discovery"]),
    ("allocator", &["cluster_core::alloc"]),
    ("p2p-gorpc", &["cluster_core::rpc", "cluster_net::rpc"]),
    ("swarm2", &["cluster_net::swarm", "libp2p_swarm"]),
    ("raftlib", &["openraft"]),
    ("libp2p-raft", &["cluster_core::consensus::log::network"]),
    ("badger", &[]),
    ("badger3", &[]),
    ("pebble", &[]),
];

/// The program itself.
const SERVICE: (&str, &[&str]) = ("service", &["ipfs_cluster_service", "ipfs_cluster_follow", "cluster_peer"]);

/// A log level cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLevelError {
    /// No such level.
    #[error("unknown log level {level:?}: use debug, info, warn or error")]
    Level {
        /// What was asked for.
        level: String,
    },
    /// No such component.
    #[error("unknown log component {component:?}: use for example cluster, restapi, raft, pintracker or ipfshttp")]
    Component {
        /// What was asked for.
        component: String,
    },
}

/// Reads a comma list of `level` and `component:level`. A plain level is for all components that are not named, wherever
/// it stands; of several for the same the last wins. Without a plain level it is info.
pub fn parse_levels(text: &str) -> Result<Targets, LogLevelError> {
    let mut everything = LevelFilter::INFO;
    let mut components = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.split_once(':') {
            None | Some(("*", _)) => everything = parse_level(entry.strip_prefix("*:").unwrap_or(entry))?,
            Some((component, level)) => {
                let level = parse_level(level)?;
                let (_, names) = COMPONENTS
                    .iter()
                    .chain([&SERVICE])
                    .find(|(name, _)| *name == component)
                    .ok_or_else(|| LogLevelError::Component { component: component.to_owned() })?;
                components.extend(names.iter().map(|name| (*name, level)));
            }
        }
    }
    Ok(everything_at(everything).with_targets(components))
}

/// Everything at debug, libraries too.
pub fn debug_levels() -> Targets {
    Targets::new().with_default(LevelFilter::DEBUG)
}

/// Starts logging; fails if this process already logs.
pub fn start(levels: Targets) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(levels).with(lines).try_init()
}

fn everything_at(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LIBRARIES.min(level))
        .with_targets(NOISY.map(|target| (target, LevelFilter::ERROR)))
        .with_targets(OWN_TARGETS.map(|target| (target, level)))
}

fn parse_level(text: &str) -> Result<LevelFilter, LogLevelError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" | "critical" => LevelFilter::ERROR,
        _ => return Err(LogLevelError::Level { level: text.to_owned() }),
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_hold_for_everything_or_for_one_component() {
        let levels = parse_levels("warn,raft:debug").unwrap();
        assert!(levels.would_enable("cluster_core::consensus::log", &Level::DEBUG));
        assert!(!levels.would_enable("cluster_core::tracker", &Level::INFO));
        assert!(levels.would_enable("cluster_core::tracker", &Level::WARN));
        assert!(parse_levels("raft:debug,warn").unwrap().would_enable("cluster_core::consensus::log", &Level::DEBUG));
        let libraries = debug_levels();
        assert!(
            libraries.would_enable("libp2p_swarm", &Level::DEBUG) && libraries.would_enable("openraft", &Level::DEBUG)
        );
    }

    #[test]
    fn rooms_of_the_network_are_told_apart() {
        let levels = parse_levels("warn,pstoremgr:debug").unwrap();
        assert!(levels.would_enable("cluster_net::discovery::book", &Level::DEBUG));
        assert!(!levels.would_enable("cluster_net::swarm::actor", &Level::INFO));
        assert!(parse_levels("info").unwrap().would_enable("ipfs_cluster_follow::commands", &Level::INFO));
    }

    #[test]
    fn without_a_word_it_is_info_and_libraries_are_quieter() {
        let levels = parse_levels("").unwrap();
        assert!(levels.would_enable("cluster_api", &Level::INFO));
        assert!(!levels.would_enable("cluster_api", &Level::DEBUG));
        assert!(!levels.would_enable("libp2p_swarm", &Level::INFO));
        assert!(levels.would_enable("libp2p_swarm", &Level::WARN));
        assert!(!levels.would_enable("libp2p_gossipsub::behaviour", &Level::WARN), "a full queue is no news");
        assert!(levels.would_enable("libp2p_gossipsub::behaviour", &Level::ERROR));
    }

    #[test]
    fn requests_are_logged_unless_somebody_asks_for_less() {
        assert!(parse_levels("").unwrap().would_enable(cluster_api::ACCESS_LOG, &Level::INFO));
        assert!(debug_levels().would_enable(cluster_api::ACCESS_LOG, &Level::INFO));
        let quiet = parse_levels("info,restapilog:error").unwrap();
        assert!(!quiet.would_enable(cluster_api::ACCESS_LOG, &Level::INFO));
        assert!(quiet.would_enable("cluster_api", &Level::INFO));
    }

    #[test]
    fn what_is_no_level_and_no_component_is_refused() {
        assert!(matches!(parse_levels("loud"), Err(LogLevelError::Level { .. })));
        assert!(matches!(parse_levels("weather:info"), Err(LogLevelError::Component { .. })));
        assert!(parse_levels("badger3:info,pebble:warn,service:debug").is_ok());
    }
}
