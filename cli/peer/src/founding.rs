//! May a peer without state found a cluster of its own, when its configuration names others?
//!
//! In raft mode no: peers that found a cluster each never become one again by themselves. Those of `init_peerset` wait for
//! each other and found one together. In crdt mode it may: it is connected to the others, and as soon as they meet the
//! smaller cluster joins the larger with its pins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cluster_core::cluster::gather::{self, Gathered};
use cluster_core::ports::Transport;
use cluster_core::rpc::CallServer;
use cluster_net::Network;
use cluster_types::{Multiaddr, PeerId, Protocol};

use crate::config::{Config, ConsensusMode};
use crate::following;
use crate::peer::PeerError;

/// As much of the peerstore as is looked at: far more than one line, which is enough to name somebody.
const MAX_PEERSTORE: u64 = 64 * 1024;
/// More than a peerstore of thousands of peers has; what is larger is another file.
const MAX_WHOLE_PEERSTORE: u64 = 4 * 1024 * 1024;

/// The peers with which this one is to found a cluster, itself among them: those of `consensus.raft.init_peerset`; nobody
/// when it names no other.
pub(crate) fn founders(config: &Config, own: PeerId) -> BTreeSet<PeerId> {
    let ConsensusMode::Raft { initial_peers, .. } = &config.consensus.mode else { return BTreeSet::new() };
    let founders: BTreeSet<PeerId> = initial_peers.iter().copied().chain([own]).collect();
    if founders.len() > 1 { founders } else { BTreeSet::new() }
}

/// Refuses to found a cluster beside that of peers which the configuration names (raft mode), or says that it happens
/// (crdt mode).
pub(crate) fn check(config: &Config, own: PeerId) -> Result<(), PeerError> {
    if !founders(config, own).is_empty() {
        return Ok(());
    }
    let path = &config.cluster.peerstore_file;
    let peerstore = read(path).unwrap_or_default();
    let mut places = naming(config, own);
    if names_others(peerstore.lines().filter_map(|line| line.trim().parse().ok()), own) {
        places.push(path.display().to_string());
    }
    if places.is_empty() {
        return Ok(());
    }
    let places = places.join(", ");
    match config.consensus.mode {
        ConsensusMode::Raft { .. } => Err(PeerError::OthersNamed { places }),
        ConsensusMode::Crdt { .. } => {
            tracing::info!(
                places,
                "other peers are named: this peer joins their cluster, or they its own, when they meet"
            );
            let strangers = not_trusted(config, own, &peerstore);
            if !strangers.is_empty() {
                tracing::warn!(
                    ?strangers,
                    "these named peers are not in consensus.crdt.trusted_peers: this peer does not join their cluster, nor \
                     they its own"
                );
            }
            Ok(())
        }
    }
}

/// Waits for those with whom this peer is to found a cluster. The members of that cluster, to be joined; nobody if this
/// peer founds it.
pub(crate) async fn gather(config: &Config, network: &Arc<Network>, server: &CallServer) -> Vec<PeerId> {
    let founders = founders(config, network.local_peer());
    if founders.is_empty() {
        return Vec::new();
    }
    let transport = Arc::clone(network) as Arc<dyn Transport>;
    match gather::gather(&transport, server, founders).await {
        Gathered::Found => Vec::new(),
        Gathered::Join(members) => members,
    }
}

/// The peers that `cluster.peer_addresses` names, with their addresses.
pub(crate) fn named_peers(config: &Config, own: PeerId) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let mut named: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for address in &config.cluster.peer_addresses {
        let mut place = address.clone();
        if let Some(Protocol::P2p(peer)) = place.pop()
            && peer != own
        {
            named.entry(peer).or_default().push(place);
        }
    }
    named
}

/// Those that the configuration or the peerstore names, and that are not trusted.
fn not_trusted(config: &Config, own: PeerId, peerstore: &str) -> BTreeSet<PeerId> {
    let trust = following::trust(config);
    let stored = peerstore.lines().filter_map(|line| line.trim().parse::<Multiaddr>().ok());
    let named = stored.chain(config.cluster.peer_addresses.iter().cloned()).filter_map(|address| {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return None };
        Some(peer)
    });
    named.filter(|peer| *peer != own && !trust.includes(peer)).collect()
}

/// The keys of the configuration that name other peers.
fn naming(config: &Config, own: PeerId) -> Vec<String> {
    let mut places = Vec::new();
    if names_others(config.cluster.peer_addresses.iter().cloned(), own) {
        places.push("cluster.peer_addresses".to_owned());
    }
    places
}

fn names_others(mut addresses: impl Iterator<Item = Multiaddr>, own: PeerId) -> bool {
    // The address of an empty line has no parts.
    addresses.any(|address| address.iter().last().is_some_and(|last| last != Protocol::P2p(own)))
}

fn read(path: &Path) -> io::Result<String> {
    read_up_to(path, MAX_PEERSTORE)
}

/// The whole peerstore; nothing when there is none.
pub(crate) fn read_all(path: &Path) -> io::Result<String> {
    let text = match read_up_to(path, MAX_WHOLE_PEERSTORE + 1) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    if text.len() as u64 > MAX_WHOLE_PEERSTORE {
        let what = format!("{} is larger than {MAX_WHOLE_PEERSTORE} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

fn read_up_to(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use cluster_types::parse_peer_id;

    use super::*;
    use crate::config::{ConfigFolder, ConsensusName, NewConfig};

    const OWN: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const OTHER: &str = "QmaFyXjZUNaUwYF8rBtbc7foEJ46aD52AKSvkMqPnBYnnR";

    fn outcome(consensus: ConsensusName, peers: &[&str], addresses: &str, peerstore: &str) -> Option<String> {
        let place = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(place.path());
        let peers = peers.iter().map(|peer| parse_peer_id(peer).unwrap()).collect();
        let variables = BTreeMap::from([("CLUSTER_PEERADDRESSES".to_owned(), addresses.to_owned())]);
        let new = NewConfig { consensus, peers, ..NewConfig::with_new_secret() };
        let config = new.write(&folder, &variables).unwrap().config;
        std::fs::write(&config.cluster.peerstore_file, peerstore).unwrap();
        match check(&config, parse_peer_id(OWN).unwrap()) {
            Ok(()) => None,
            Err(PeerError::OthersNamed { places }) => Some(places),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_raft_peer_founds_a_cluster_only_when_it_knows_nobody_else() {
        let raft = ConsensusName::Raft;
        assert_eq!(outcome(raft, &[], "", ""), None);
        let own = format!("/ip4/10.0.0.1/tcp/9096/p2p/{OWN}");
        assert_eq!(outcome(raft, &[OWN], &own, &format!("{own}\n\n")), None);
        let other = format!("/ip4/10.0.0.1/tcp/9096/p2p/{OTHER}");
        assert_eq!(outcome(raft, &[], &other, "").unwrap(), "cluster.peer_addresses");
        assert!(outcome(raft, &[], "", &format!("{own}\n{other}\n")).unwrap().ends_with("/peerstore"));
        assert_eq!(outcome(raft, &[OTHER], "", &other), None, "they found one together");
        assert_eq!(outcome(ConsensusName::Crdt, &[], &other, &other), None);
    }
}
