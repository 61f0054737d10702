//! The dictionary of peer ids: records hold small numbers instead of ids.
//!
//! Numbers are local to the store and never reused. A number is assigned in the batch that first uses it, and shown
//! to readers after that batch is written; a reader that sees a record before, or does not find a peer, looks into the
//! database itself.

use std::collections::{BTreeMap, HashMap};

use cluster_core::ports::StateError;
use cluster_types::PeerId;
use parking_lot::RwLock;
use rocksdb::WriteBatch;

use crate::engine::{Engine, Moment};
use crate::keys::{self, Family};

/// Peer ids and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    names: RwLock<Names>,
}

#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<PeerId, u32>,
    peers: BTreeMap<u32, PeerId>,
}

impl Names {
    fn insert(&mut self, number: u32, peer: PeerId) {
        self.numbers.insert(peer, number);
        self.peers.insert(number, peer);
    }
}

impl Dictionary {
    /// Reads the dictionary; it has as many entries as the cluster ever had peers.
    pub(crate) fn load(moment: &Moment<'_>) -> Result<Self, StateError> {
        let mut names = Names::default();
        let mut rows = moment.rows(Family::Peers, &[], None);
        while let Some((key, value)) = rows.next()? {
            names.insert(keys::peer_number(&key)?, read_peer(&value)?);
        }
        Ok(Self { names: RwLock::new(names) })
    }

    /// The number of a peer in the records of `moment`, if it has one there: also one assigned in a batch that is
    /// written but not shown yet. A peer without a number costs a walk over the dictionary.
    pub(crate) fn number_in(&self, peer: &PeerId, moment: &Moment<'_>) -> Result<Option<u32>, StateError> {
        if let Some(number) = self.number(peer) {
            return Ok(Some(number));
        }
        let mut rows = moment.rows(Family::Peers, &[], None);
        while let Some((key, value)) = rows.next()? {
            if read_peer(&value)? == *peer {
                return keys::peer_number(&key).map(Some);
            }
        }
        Ok(None)
    }

    /// The number of a peer, if it has one.
    fn number(&self, peer: &PeerId) -> Option<u32> {
        self.names.read().numbers.get(peer).copied()
    }

    /// The peer of a number in a record of `engine`.
    pub(crate) fn peer(&self, number: u32, engine: &Engine) -> Result<PeerId, StateError> {
        if let Some(peer) = self.names.read().peers.get(&number) {
            return Ok(*peer);
        }
        let value = engine.get(Family::Peers, &keys::peer_by_number(number))?;
        let value = value.ok_or_else(|| StateError::Damaged { what: format!("no peer has the number {number}") })?;
        read_peer(&value)
    }
}

/// Assigns the numbers that one batch needs.
#[derive(Debug)]
pub(crate) struct Assigner<'a> {
    dictionary: &'a Dictionary,
    fresh: HashMap<PeerId, u32>,
}

impl<'a> Assigner<'a> {
    /// Nothing assigned yet.
    pub(crate) fn new(dictionary: &'a Dictionary) -> Self {
        Self { dictionary, fresh: HashMap::new() }
    }

    /// The number of a peer, a new one if it has none.
    pub(crate) fn number(&mut self, peer: &PeerId) -> u32 {
        if let Some(number) = self.dictionary.number(peer).or_else(|| self.fresh.get(peer).copied()) {
            return number;
        }
        let last = self.dictionary.names.read().peers.last_key_value().map_or(0, |(number, _peer)| *number);
        let fresh = u32::try_from(self.fresh.len()).unwrap_or(u32::MAX);
        let number = last.saturating_add(fresh).saturating_add(1);
        self.fresh.insert(*peer, number);
        number
    }

    /// Adds what was assigned to the batch.
    pub(crate) fn write(&self, engine: &Engine, batch: &mut WriteBatch) {
        for (peer, number) in &self.fresh {
            engine.put(batch, Family::Peers, keys::peer_by_number(*number), peer.to_bytes());
        }
    }

    /// Shows readers what was assigned; the batch is written.
    pub(crate) fn publish(self) {
        if self.fresh.is_empty() {
            return;
        }
        let mut names = self.dictionary.names.write();
        for (peer, number) in self.fresh {
            names.insert(number, peer);
        }
    }
}

fn read_peer(bytes: &[u8]) -> Result<PeerId, StateError> {
    PeerId::from_bytes(bytes)
        .map_err(|error| StateError::Damaged { what: format!("peer id in the dictionary: {error}") })
}
