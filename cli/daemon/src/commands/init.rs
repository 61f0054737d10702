//! `init`: writes a configuration, an identity if there is none, and the peerstore.
//!
//! Answers go to the standard error, as scripts around the original expect. An existing identity is never touched.

use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use clap::ValueEnum;
use cluster_peer::config::{
    ConfigFolder, IdentitySource, NewConfig, PEERSTORE, ProcessEnvironment, ensure_identity, ensure_legacy_identity,
    write_source,
};
use cluster_types::{Multiaddr, PeerId, Protocol};

use crate::args::{Arguments, InitArguments};
use crate::prompt;

const OVERWRITE: &str = "The configuration file will be overwritten. Continue?";
const ASK_SECRET: &str = "Enter cluster secret (32-byte hex string): ";

/// Runs the command.
pub(crate) fn run(init: &InitArguments, arguments: &Arguments) -> anyhow::Result<()> {
    let folder = arguments.folder()?;
    let peers = known_peers(&init.peers)?;
    // A folder that is not there yet is made when everything was understood.
    let existed = folder.path().exists();
    let lock = if existed { Some(super::lock(&folder)?) } else { None };
    if folder.config_file().exists() && !init.force && !arguments.force {
        let answer = prompt::yes_or_no(OVERWRITE, &mut io::stdin().lock(), &mut io::stdout());
        if !answer.context("reading the answer")? {
            bail!("initializing: the configuration was left as it is");
        }
    }
    let new = if init.source.is_some() { None } else { Some(new_config(init, &peers)?) };
    folder.create().context("creating the folder")?;
    let _lock = match lock {
        Some(lock) => lock,
        None => super::lock(&folder)?,
    };
    if !existed && folder.config_file().exists() {
        bail!("initializing: another `init` has just written this folder");
    }
    let known = IdentitySource::of_folder(&folder, &ProcessEnvironment).context("reading the identity")?;
    // The file that is replaced may be the only one that holds the peer's key.
    if ensure_legacy_identity(&folder, &known).context("writing the identity")? {
        eprintln!("new identity written to {}", folder.identity_file().display());
    }
    let peerstore = match (&new, &init.source) {
        (Some(new), _) => {
            let loaded = new.write(&folder, &ProcessEnvironment).context("writing the configuration")?;
            loaded.config.cluster.peerstore_file
        }
        (None, source) => {
            write_source(&folder, source.as_deref().unwrap_or_default()).context("writing the configuration")?;
            folder.file(PEERSTORE)
        }
    };
    eprintln!("configuration written to {}.", folder.config_file().display());
    if let Some(name) = init.datastore.as_ref().and_then(ValueEnum::to_possible_value) {
        eprintln!("note: state is kept in RocksDB; datastore.{} has no effect.", name.get_name());
    }
    write_identity(&folder, &known)?;
    write_peerstore(&folder, &peerstore, &addresses(peers))
}

/// The configuration that the flags ask for; asks for a secret if they say so.
fn new_config(init: &InitArguments, peers: &[(PeerId, Multiaddr)]) -> anyhow::Result<NewConfig> {
    let mut new = NewConfig {
        consensus: init.consensus.into(),
        datastore: init.datastore.unwrap_or_default().into(),
        node: init.ipfs.into(),
        peers: peers.iter().map(|(peer, _)| *peer).collect(),
        random_ports: init.randomports,
        ..NewConfig::with_new_secret()
    };
    if init.custom_secret {
        let text = prompt::line(ASK_SECRET, &mut io::stdin().lock(), &mut io::stdout())?;
        new.secret = text.parse().context("parsing the secret")?;
        new.secret_is_chosen = true;
    }
    Ok(new)
}

fn addresses(peers: Vec<(PeerId, Multiaddr)>) -> Vec<Multiaddr> {
    peers.into_iter().map(|(_, address)| address).collect()
}

fn write_identity(folder: &ConfigFolder, source: &IdentitySource) -> anyhow::Result<()> {
    if ensure_identity(folder, source).context("writing the identity")? {
        eprintln!("new identity written to {}", folder.identity_file().display());
    }
    Ok(())
}

fn write_peerstore(folder: &ConfigFolder, path: &Path, addresses: &[Multiaddr]) -> anyhow::Result<()> {
    let count = folder.write_peerstore(path, addresses).context("writing the peerstore")?;
    if count == 0 {
        eprintln!("new empty peerstore written to {}.", path.display());
    } else {
        eprintln!("peerstore written to {} with {count} entries.", path.display());
    }
    Ok(())
}

/// The peers of `--peers`, each with its id.
fn known_peers(texts: &[String]) -> anyhow::Result<Vec<(PeerId, Multiaddr)>> {
    let texts = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    texts
        .map(|text| {
            let address: Multiaddr = text.parse().with_context(|| format!("parsing the peer address {text:?}"))?;
            match address.iter().last() {
                Some(Protocol::P2p(peer)) => Ok((peer, address)),
                Some(_) | None => bail!("parsing the peer address {text:?}: it must end in /p2p/<peer id>"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_peer_needs_its_id() {
        let id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let peers = known_peers(&[format!(" /ip4/10.0.0.1/tcp/9096/p2p/{id}"), String::new()]).unwrap();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].0.to_string(), id);
        assert!(known_peers(&["/ip4/10.0.0.1/tcp/9096".to_owned()]).is_err());
        assert!(known_peers(&["10.0.0.1:9096".to_owned()]).is_err());
    }
}
