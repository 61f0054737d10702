//! The peerstore file: where remembered peers were last reached, one address with `/p2p/<peer>` a line.
//!
//! The file is a hint, not a truth: lines that cannot be read are skipped and counted in the log, and it is written some
//! time after a change, because losing the newest address costs a search and no data.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{ErrorChain, Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use super::address::{dialable, peer_of, with_peer};
use crate::file;
use crate::swarm::Shared;

/// The largest peerstore that is read: 1,000 peers with 16 of the longest addresses each, with room.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// How many peers are taken from it.
const MAX_PEERS: usize = 1_000;
/// How long changes are collected before they are written.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Reads the peerstore; a missing file is an empty one, and so is one that cannot be read.
pub(crate) fn load_peerstore(path: &Path) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    match file::read_at_most(path, MAX_FILE) {
        Ok(content) => {
            let (peers, skipped) = parse(&String::from_utf8_lossy(&content));
            if skipped > 0 {
                tracing::warn!(path = %path.display(), skipped, "skipped lines of the peerstore that are not usable");
            }
            peers
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %ErrorChain(&error), "cannot read the peerstore");
            BTreeMap::new()
        }
    }
}

/// Writes the remembered peers, the whole file or nothing.
fn save_peerstore(path: &Path, shared: &Shared) -> io::Result<()> {
    let mut lines = String::new();
    for (peer, addresses) in shared.book.lock().remembered() {
        for address in addresses {
            lines.push_str(&with_peer(address.clone(), peer).to_string());
            lines.push('\n');
        }
    }
    file::replace(path, lines.as_bytes())
}

/// Writes the peerstore whenever the address book has changed, and a last time at the end.
pub(crate) async fn keep_peerstore(path: PathBuf, shared: Arc<Shared>, stop: CancellationToken) {
    let mut saved = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.book_changed.notified() => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(DEBOUNCE) => {}
                }
            }
        }
        let revision = shared.book.lock().revision();
        if revision != saved && write_once(&path, &shared).await {
            saved = revision;
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Says whether it is written; if not, the next change or the end brings the next try.
async fn write_once(path: &Path, shared: &Arc<Shared>) -> bool {
    let (owned_path, shared) = (path.to_path_buf(), Arc::clone(shared));
    let written = tokio::task::spawn_blocking(move || save_peerstore(&owned_path, &shared)).await;
    let error = match written {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error,
        Err(join_error) => io::Error::other(join_error),
    };
    tracing::warn!(path = %path.display(), error = %ErrorChain(&error), "cannot write the peerstore");
    false
}

/// The peers of a file's text, and how many lines were not usable.
fn parse(text: &str) -> (BTreeMap<PeerId, Vec<Multiaddr>>, usize) {
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    let mut skipped = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // Files of long ago wrote `/ipfs/` for `/p2p/`.
        let usable = line.replace("/ipfs/", "/p2p/").parse::<Multiaddr>().ok().and_then(|address| {
            let peer = peer_of(&address)?;
            Some((peer, dialable(&address, &peer)?))
        });
        match usable {
            Some((peer, address)) if peers.len() < MAX_PEERS || peers.contains_key(&peer) => {
                peers.entry(peer).or_default().push(address);
            }
            Some(_) | None => skipped += 1,
        }
    }
    (peers, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_lines_are_skipped_and_counted() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let text = format!(
            "/ip4/10.0.0.1/tcp/9096/p2p/{peer}\n\n /dns4/peer.example/tcp/9096/ipfs/{peer} \n/ip4/10.0.0.1/tcp/9096\n\
             nonsense\n/ip4/10.0.0.1/udp/9096/quic-v1/p2p/{peer}\n"
        );
        let (peers, skipped) = parse(&text);
        assert_eq!(skipped, 3);
        assert_eq!(peers.len(), 1);
        assert_eq!(
            peers[&peer.parse::<PeerId>().unwrap()],
            ["/ip4/10.0.0.1/tcp/9096".parse().unwrap(), "/dns4/peer.example/tcp/9096".parse::<Multiaddr>().unwrap()]
        );
    }
}
