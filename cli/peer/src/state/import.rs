//! Puts a pinset from a file in the place of the state.
//!
//! The pins go into a new database beside the present one, as the beginning of a new cluster
//! ([`cluster_core::consensus::log::found`] says why in that shape); only when all of them are there and on the disk,
//! it takes the place of the old one, which is set aside ([`super::place`]). So whatever is wrong with the input, and
//! whenever the process dies, one whole state is in place: the old or the new.
//!
//! In `crdt` mode the peer is a cluster of one afterwards. In `raft` mode its cluster has the peers of the peerstore and
//! itself: the same file is imported on all of them, or the others join it with `--bootstrap` after their peerstores and
//! its own were emptied.
//!
//! What the tracker knew is not kept: the peer queues what it was given and finds it pinned already. Nothing is unpinned.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

use cluster_core::consensus::log::{FoundError, Founding, IMPORT_INDEX, found, import_changes};
use cluster_core::ports::{Clock, LocalEffect, StateError, StateStore, SystemClock};
use cluster_store::{Store, StoreError, StoreOptions};
use cluster_types::{BoxError, Multiaddr, PeerId, Pin, Protocol};
use tokio::sync::mpsc;

use super::documents::{CutError, Documents};
use super::place;
use super::record;
pub use super::record::ImportOptions;
use crate::config::{Config, ConsensusMode, load_identity};
use crate::founding;
use crate::peer::effect;

/// Pins written at a time.
const BATCH: usize = 1024;
/// Bytes of input read for them at most, so that large pins make small batches.
const BATCH_BYTES: usize = 4 << 20;
/// Batches read ahead of the one that is written.
const AHEAD: usize = 2;
/// Most addresses of a member, and most bytes of each, as for members that join.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 256;

/// A pinset cannot be imported; the state in place is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The input is not an export.
    #[error("line {line}: {reason}; nothing was changed")]
    Input {
        /// Where, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The input cannot be read.
    #[error("cannot read the input after line {line}; nothing was changed")]
    Unreadable {
        /// How far it could be read.
        line: u64,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The thread that reads the input died.
    #[error("reading the input was cut off; nothing was changed")]
    Reader(#[source] BoxError),
    /// The new state cannot be put in its place.
    #[error("cannot work in the state folder")]
    Folder(#[source] io::Error),
    /// The new state cannot be opened or closed.
    #[error("cannot make a new state")]
    Store(#[source] StoreError),
    /// The new state cannot be written.
    #[error("cannot write the new state")]
    Write(#[source] StateError),
    /// The new state cannot become the beginning of a cluster.
    #[error("cannot found a cluster on the new state")]
    Found(#[source] FoundError),
    /// Who this peer is, and who belongs to its cluster, cannot be found out.
    #[error("cannot find out who the members are")]
    Members(#[source] BoxError),
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Number of pins.
    pub pins: u64,
    /// The members of the cluster that the state belongs to.
    pub members: Vec<PeerId>,
}

/// Replaces the state of a stopped peer by the pins of `input`, JSON objects one after the other.
pub async fn import(
    config: &Config,
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
) -> Result<Imported, ImportError> {
    let identity = load_identity(&config.folder, &config.cluster.identity);
    let own = identity.map_err(|error| ImportError::Members(error.into()))?.peer();
    let members = members(config, own)?;
    let folder = &config.state_folder;
    place::settle(folder, config.consensus.backups).map_err(ImportError::Folder)?;
    let new = place::begin_import(folder).map_err(ImportError::Folder)?;
    let written = write(config, &new, own, &members, input, options).await;
    let end = match &written {
        Ok(_pins) => place::finish_import(folder, config.consensus.backups),
        Err(_) => place::abandon_import(folder),
    };
    let pins = written?;
    end.map_err(ImportError::Folder)?;
    Ok(Imported { pins, members: members.into_keys().collect() })
}

/// Makes the new state in `folder`; on the disk when this returns.
async fn write(
    config: &Config,
    folder: &Path,
    own: PeerId,
    members: &BTreeMap<PeerId, Vec<Multiaddr>>,
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
) -> Result<u64, ImportError> {
    let place = folder.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&place, StoreOptions::default())).await;
    let store = store.map_err(|error| ImportError::Folder(error.into()))?.map_err(ImportError::Store)?;
    let state = store.state();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let effect = effect(own, config, clock)(IMPORT_INDEX);
    let filled = fill(&*state, input, options, &effect).await;
    let founded = match filled {
        Ok(()) => {
            let founding = Founding {
                state: Arc::clone(&state) as _,
                log: store.raft_log(),
                record: Arc::new(store.raft_log()),
                own,
                members: members.clone(),
                max_voters: config.consensus.max_voters,
                cluster_name: config.consensus.cluster_name.clone(),
                chance: rand::make_rng(),
            };
            found(founding).await.map_err(ImportError::Found)
        }
        Err(error) => Err(error),
    };
    let closed = store.close().await.map_err(ImportError::Store);
    founded?;
    closed?;
    Ok(state.pins())
}

/// Writes the pins of `input` into a state, while a thread reads ahead.
async fn fill(
    state: &dyn StateStore,
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
    effect: &LocalEffect,
) -> Result<(), ImportError> {
    let (sender, mut batches) = mpsc::channel(AHEAD);
    // Without its receiver it ends when the next batch is full. An input that gives nothing more holds it up; nobody
    // waits for it then.
    let reader = tokio::task::spawn_blocking(move || read(Documents::new(input), &options, &sender));
    while let Some(batch) = batches.recv().await {
        let (pins, effect): (Vec<Pin>, _) = (batch?, Arc::clone(effect));
        let update = state.update(Box::new(move |view| import_changes(view, pins, &effect)));
        update.await.map_err(ImportError::Write)?;
    }
    // Had it died, what was read would not be all.
    reader.await.map_err(|error| ImportError::Reader(error.into()))
}

/// The pins of an export up to its end or the first that is wrong.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(export: &[u8], options: &ImportOptions) -> Vec<Pin> {
    let mut documents = Documents::new(export);
    let mut pins = Vec::new();
    while let Ok(Some(document)) = documents.next() {
        let Ok(pin) = record::read(document, options) else { break };
        pins.push(pin);
    }
    pins
}

/// Reads the pins of an input batch by batch, until its end or the first that is wrong.
fn read<R: BufRead>(
    mut documents: Documents<R>,
    options: &ImportOptions,
    batches: &mpsc::Sender<Result<Vec<Pin>, ImportError>>,
) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        let pin = match documents.next() {
            Ok(Some(document)) => {
                bytes += document.len();
                record::read(document, options).map(Some).map_err(|refusal| ImportError::Input {
                    line: documents.begins_at() + refusal.lines,
                    reason: refusal.reason,
                })
            }
            Ok(None) => Ok(None),
            Err(CutError::Unreadable(cause)) => Err(ImportError::Unreadable { line: documents.begins_at(), cause }),
            Err(error) => Err(ImportError::Input { line: documents.begins_at(), reason: error.to_string() }),
        };
        let ends = !matches!(pin, Ok(Some(_)));
        match pin {
            Ok(pin) => batch.extend(pin),
            Err(error) => {
                drop(batches.blocking_send(Err(error)));
                return;
            }
        }
        if ends || batch.len() >= BATCH || bytes >= BATCH_BYTES {
            bytes = 0;
            if batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() || ends {
                return;
            }
        }
    }
}

/// The members of the cluster that the import founds, and where they are reached.
fn members(config: &Config, own: PeerId) -> Result<BTreeMap<PeerId, Vec<Multiaddr>>, ImportError> {
    let mut members: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::from([(own, own_addresses(config, own))]);
    if let ConsensusMode::Crdt { .. } = config.consensus.mode {
        return Ok(members);
    }
    let peerstore = founding::read_all(&config.cluster.peerstore_file);
    let peerstore = peerstore.map_err(|error| ImportError::Members(error.into()))?;
    for address in peerstore.lines().filter_map(|line| line.trim().parse::<Multiaddr>().ok()) {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { continue };
        let addresses = members.entry(peer).or_default();
        if peer != own && addresses.len() < MAX_ADDRESSES && address.len() <= MAX_ADDRESS_BYTES {
            addresses.push(address);
        }
    }
    Ok(members)
}

/// Where this peer says it is: what it announces, or listens on; an address that means every interface says nothing.
fn own_addresses(config: &Config, own: PeerId) -> Vec<Multiaddr> {
    let cluster = &config.cluster;
    let announced = &cluster.announce_addresses;
    let listens = if announced.is_empty() { &cluster.listen_addresses } else { announced };
    let says = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified(),
        Some(_) => true,
        None => false,
    };
    let own_addresses = listens.iter().filter(|address| says(address)).take(MAX_ADDRESSES).cloned();
    own_addresses
        .map(|address| {
            let has_peer = matches!(address.iter().last(), Some(Protocol::P2p(_)));
            if has_peer { address } else { address.with(Protocol::P2p(own)) }
        })
        .collect()
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
