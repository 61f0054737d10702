//! Who the node is, how full it is, whom it knows, and what a path means.

use cluster_core::ports::IpfsError;
use cluster_types::{Cid, GcKey, IpfsId, Multiaddr, Protocol, RepoStat, parse_peer_id};
use serde::Deserialize;

use super::KuboConfig;
use super::client::{Call, Client, Failure, shortened};
use crate::GcList;

/// The longest answer to a small question.
const MAX_SMALL: usize = 64 * 1024;
/// The longest answer to `id`, which lists addresses and protocols.
const MAX_ID: usize = 1024 * 1024;
/// The longest answer to `swarm/peers`: some 50,000 connections.
const MAX_PEERS: usize = 16 * 1024 * 1024;
/// The most addresses taken from an answer to `id`, and sent to `swarm/connect`.
const MAX_ADDRESSES: usize = 64;
/// The longest path that is resolved.
const MAX_PATH: usize = 4096;

#[derive(Deserialize)]
struct IdAnswer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addresses", default)]
    addresses: Option<Vec<String>>,
}

/// Who the node is.
pub(super) async fn id(client: &Client, config: &KuboConfig) -> Result<IpfsId, Failure> {
    let call = Call::new("id");
    let answer: IdAnswer = client.ask(&call, MAX_ID, config.request_timeout).await?;
    parse_peer_id(&answer.id)
        .map_err(|error| IpfsError::BadAnswer { operation: call.operation, reason: error.to_string() })?;
    let addresses = answer.addresses.unwrap_or_default();
    let addresses = addresses.iter().filter_map(|address| address.parse().ok()).take(MAX_ADDRESSES).collect();
    Ok(IpfsId { id: answer.id, addresses, error: String::new() })
}

#[derive(Deserialize)]
struct ResolveAnswer {
    #[serde(rename = "Path")]
    path: String,
}

/// The root CID behind a path; a plain CID is not asked for.
pub(super) async fn resolve(client: &Client, config: &KuboConfig, path: &str) -> Result<Cid, Failure> {
    let refused = |reason: &str| {
        let reason = format!("cannot resolve {}: {reason}", shortened(path));
        Failure::from(IpfsError::Refused { reason })
    };
    if path.len() > MAX_PATH {
        return Err(refused("it is too long"));
    }
    let (namespace, first, rest) = split(path).ok_or_else(|| refused("it is not /ipfs/…, /ipns/… or /ipld/…"))?;
    if namespace != "ipns" && rest.is_empty() {
        return first.parse().map_err(|_| refused("there is no CID in it"));
    }
    let call = Call::new("resolve").with("arg", path);
    let answer: ResolveAnswer = client.ask(&call, MAX_SMALL, config.request_timeout).await?;
    let root = split(&answer.path).and_then(|(_, first, _)| first.parse().ok());
    root.ok_or_else(|| {
        let reason = format!("{} is no resolved path", shortened(&answer.path));
        IpfsError::BadAnswer { operation: call.operation, reason }.into()
    })
}

/// Namespace, first segment and the rest of an IPFS path.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (namespace, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (first, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let known = matches!(namespace, "ipfs" | "ipns" | "ipld") && !first.is_empty();
    known.then_some((namespace, first, rest.trim_matches('/')))
}

#[derive(Deserialize)]
struct StatAnswer {
    #[serde(rename = "RepoSize")]
    repo_size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
}

/// How full the repository is.
pub(super) async fn stat(client: &Client, config: &KuboConfig) -> Result<RepoStat, Failure> {
    let call = Call::new("repo/stat").with("size-only", true);
    let answer: StatAnswer = client.ask(&call, MAX_SMALL, config.request_timeout).await?;
    Ok(RepoStat { repo_size: answer.repo_size, storage_max: answer.storage_max })
}

#[derive(Deserialize)]
struct GcLine {
    #[serde(rename = "Key", default)]
    key: Option<Link>,
    #[serde(rename = "Error", default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: Cid,
}

/// Removes what nothing protects. Errors of single blocks are entries; the error that sums them up is none more.
pub(super) async fn collect_garbage(client: &Client, config: &KuboConfig) -> Result<Vec<GcKey>, Failure> {
    let call = Call::new("repo/gc").with("stream-errors", true);
    let mut keys = GcList::new();
    let mut failed = false;
    let work = async {
        let mut lines = client.post(&call, None).await?.lines();
        while let Some(line) = lines.next::<GcLine>().await? {
            let error = shortened(&line.error.unwrap_or_default());
            failed |= !error.is_empty();
            keys.push(line.key.map(|link| link.cid), error);
        }
        Ok(())
    };
    match client.within(call.operation, config.repogc_timeout, work).await {
        Ok(()) => {}
        // With stream-errors, Kubo ends a run in which single blocks failed with an error that adds nothing.
        Err(Failure::Said { status: 200, .. }) if failed => {}
        Err(failure) => return Err(failure),
    }
    Ok(keys.finish())
}

/// Connects to one other node.
pub(super) async fn connect(client: &Client, config: &KuboConfig, addresses: &[Multiaddr]) -> Result<(), Failure> {
    let refused = |reason: String| Failure::from(IpfsError::Refused { reason });
    if addresses.is_empty() {
        return Err(refused("there is no address to connect to".to_owned()));
    }
    let mut call = Call::new("swarm/connect");
    for address in addresses.iter().take(MAX_ADDRESSES) {
        if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            return Err(refused(format!("cannot connect to {address}: it does not end with /p2p/ and a peer id")));
        }
        call = call.with("arg", address);
    }
    let _answer: serde_json::Value = client.ask(&call, MAX_SMALL, config.request_timeout).await?;
    Ok(())
}

#[derive(Deserialize)]
struct PeersAnswer {
    #[serde(rename = "Peers", default)]
    peers: Option<Vec<PeerLine>>,
}

#[derive(Deserialize)]
struct PeerLine {
    #[serde(rename = "Peer")]
    peer: String,
}

/// The nodes it is connected to.
pub(super) async fn connected(client: &Client, config: &KuboConfig) -> Result<Vec<String>, Failure> {
    let call = Call::new("swarm/peers");
    let answer: PeersAnswer = client.ask(&call, MAX_PEERS, config.request_timeout).await?;
    let mut peers: Vec<String> = answer.peers.unwrap_or_default().into_iter().map(|line| line.peer).collect();
    peers.retain(|peer| parse_peer_id(peer).is_ok());
    peers.sort_unstable();
    peers.dedup();
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_falls_into_three_parts() {
        assert_eq!(split("/ipfs/x"), Some(("ipfs", "x", "")));
        assert_eq!(split("/ipfs/x/"), Some(("ipfs", "x", "")));
        assert_eq!(split("/ipns/name/a/b"), Some(("ipns", "name", "a/b")));
        for path in ["", "/", "x", "/ipfs", "/ipfs/", "/http/x", "ipfs/x/y"] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
