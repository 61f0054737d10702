//! The Automerge document of a shard: built from records, then changed.
//!
//! **Invariant:** the same records give the same bytes and the same head, wherever and in whichever order they come: keys
//! are sorted, the actor is fixed, the time is 0.
//! **Invariant:** a change is taken only if it is exactly what Automerge would have made of its edits at its
//! dependencies; so whatever is in the document is well formed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, ObjId, ROOT, ReadDoc, ScalarValue, Value, hydrate};
use bytes::Bytes;
use cluster_types::{Cid, ErrorClass};

use super::RecordHash;
use super::change::{Actor, Author, Change, ChangeId, Edit, MAX_DEPENDENCIES, Parts, Stamp};
use crate::consensus::digest::shard_of;
use crate::consensus::operation::DecodeError;

/// The author of every canonical document.
const BASE_ACTOR: Actor = Actor(*b"canonical-shard!");

/// A document could not be built, or a change not be made on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// A record belongs elsewhere.
    #[error("{cid} is not in shard {shard}")]
    OtherShard {
        /// The record.
        cid: Cid,
        /// The document's shard.
        shard: u16,
    },
    /// A record was given twice.
    #[error("{cid} was given twice")]
    Twice {
        /// The record.
        cid: Cid,
    },
    /// The edits are too many or too large for one change.
    #[error("the edits do not make a change")]
    Edits(#[source] DecodeError),
    /// Automerge refused what should be sound.
    #[error("the document cannot be built")]
    Automerge(#[from] AutomergeError),
    /// A change just made did not fit.
    #[error("a change does not fit the document it was made on")]
    Unfit(#[source] Unfit),
}

impl DocumentError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::OtherShard { .. } | Self::Twice { .. } | Self::Edits(_) => ErrorClass::Invalid,
            Self::Automerge(_) | Self::Unfit(_) => ErrorClass::Fatal,
        }
    }
}

/// Why a change cannot be taken into a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It was made on other records; its edits may be carried out one by one.
    #[error("it was made on another base")]
    OtherBase,
    /// It was made after a change that is not here (yet).
    #[error("it depends on {missing}, which is not here")]
    Missing {
        /// The first such change.
        missing: ChangeId,
    },
    /// It is not what its author could have written; no honest peer makes it.
    #[error("it contradicts the document: {reason}")]
    Contradiction {
        /// How.
        reason: &'static str,
    },
}

/// A record in a document, and the operation that put it there.
pub(super) struct Shown {
    pub(super) stamp: Stamp,
    pub(super) record: Bytes,
}

/// What is known of a change in the document.
#[derive(Clone, Copy, Debug)]
struct Taken {
    author: Actor,
    number: u64,
    last_operation: u64,
}

/// The document of one shard.
#[derive(Debug)]
pub struct Document {
    shard: u16,
    base: ChangeId,
    automerge: Automerge,
    /// The base and all changes taken.
    taken: BTreeMap<ChangeId, Taken>,
    numbers: BTreeMap<(Actor, u64), ChangeId>,
}

impl Document {
    /// The canonical document of a shard.
    pub fn canonical<R: AsRef<[u8]>>(
        shard: u16,
        records: impl IntoIterator<Item = (Cid, R)>,
    ) -> Result<Self, DocumentError> {
        let mut map = HashMap::new();
        for (cid, record) in records {
            if shard_of(&cid) != shard {
                return Err(DocumentError::OtherShard { cid, shard });
            }
            let value = hydrate::Value::Scalar(ScalarValue::Bytes(record.as_ref().to_vec()));
            if map.insert(cid.to_string(), value).is_some() {
                return Err(DocumentError::Twice { cid });
            }
        }
        let operations = map.len() as u64;
        let mut automerge = Automerge::new().with_actor(ActorId::from(BASE_ACTOR.0));
        // The message makes the heads of two shards differ even when both are empty.
        let options = || CommitOptions::default().with_time(0).with_message(format!("shard {shard}"));
        let mut transaction = automerge.transaction();
        transaction.init_root_from_hydrate(&hydrate::Map::from(map))?;
        let (hash, _) = transaction.commit_with(options());
        let base = ChangeId(hash.unwrap_or_else(|| automerge.empty_commit(options())).0);
        let taken = Taken { author: BASE_ACTOR, number: 1, last_operation: operations };
        Ok(Self {
            shard,
            base,
            automerge,
            taken: BTreeMap::from([(base, taken)]),
            numbers: BTreeMap::from([((BASE_ACTOR, 1), base)]),
        })
    }

    /// The shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Names the canonical document it began as: equal records, equal base.
    pub fn base(&self) -> ChangeId {
        self.base
    }

    /// The last changes, sorted: those no other one was made after.
    pub fn heads(&self) -> Vec<ChangeId> {
        self.automerge.get_heads().into_iter().map(|hash| ChangeId(hash.0)).collect()
    }

    /// Whether a change is in it.
    pub fn has(&self, change: &ChangeId) -> bool {
        self.taken.contains_key(change)
    }

    /// Automerge's encoding, uncompressed. Of a document without changes: equal records, equal bytes. Two documents that
    /// took the same changes in different orders have equal heads, not equal bytes.
    pub fn save(&self) -> Vec<u8> {
        self.automerge.save_nocompress()
    }

    /// Makes a change, after everything the document has taken so far, and takes it. Removals of what is not there are
    /// left out; `None` if nothing remains. `base_index` is the log index the document's records are of.
    pub fn write(
        &mut self,
        author: &Author,
        base_index: u64,
        edits: &BTreeMap<Cid, Option<Bytes>>,
    ) -> Result<Option<Change>, DocumentError> {
        let actor = author.actor();
        let number = self.last_number(actor) + 1;
        let dependencies = self.dependencies(actor, number);
        let mut made = Vec::new();
        for (cid, record) in edits {
            if shard_of(cid) != self.shard {
                return Err(DocumentError::OtherShard { cid: *cid, shard: self.shard });
            }
            let (saw, overwrites) = self.seen(cid, Some(&dependencies))?;
            if record.is_some() || !overwrites.is_empty() {
                made.push(Edit { cid: *cid, record: record.clone(), saw, overwrites });
            }
        }
        if made.is_empty() {
            return Ok(None);
        }
        made.sort_by_key(|edit| edit.cid.to_bytes());
        let first_operation = self.next_operation(&dependencies);
        let parts = Parts { author: author.clone(), number, first_operation, base_index, dependencies, edits: made };
        let change = Change::build(parts).map_err(DocumentError::Edits)?;
        self.take(&change).map_err(DocumentError::Unfit)?;
        Ok(Some(change))
    }

    /// Takes a change in; `false` if it was here already.
    pub fn take(&mut self, change: &Change) -> Result<bool, Unfit> {
        if self.has(&change.id()) {
            return Ok(false);
        }
        self.check(change)?;
        let refused = |_| Unfit::Contradiction { reason: "Automerge refuses it" };
        self.automerge.apply_changes([change.built().clone()]).map_err(refused)?;
        let author = change.author().actor();
        let number = change.parts().number;
        let taken = Taken { author, number, last_operation: change.last_operation() };
        self.taken.insert(change.id(), taken);
        self.numbers.insert((author, number), change.id());
        Ok(true)
    }

    /// The records a CID has now: none, one, or several concurrent ones, the last of which is Automerge's choice.
    pub(super) fn shown(&self, cid: &Cid) -> Result<Vec<Shown>, AutomergeError> {
        self.shown_at(cid, None)
    }

    fn shown_at(&self, cid: &Cid, at: Option<&[ChangeId]>) -> Result<Vec<Shown>, AutomergeError> {
        let key = cid.to_string();
        let values = match at {
            Some(heads) => {
                let heads: Vec<ChangeHash> = heads.iter().map(|id| ChangeHash(id.0)).collect();
                self.automerge.get_all_at(ROOT, key, &heads)?
            }
            None => self.automerge.get_all(ROOT, key)?,
        };
        Ok(values.into_iter().filter_map(|(value, id)| shown(&value, &id)).collect())
    }

    /// What a CID's edit made after `at` sees and replaces.
    fn seen(&self, cid: &Cid, at: Option<&[ChangeId]>) -> Result<(Option<RecordHash>, Vec<Stamp>), AutomergeError> {
        let shown = self.shown_at(cid, at)?;
        let saw = shown.last().map(|last| RecordHash::of(cid, &last.record));
        let mut overwrites: Vec<Stamp> = shown.iter().map(|one| one.stamp).collect();
        overwrites.sort_unstable();
        Ok((saw, overwrites))
    }

    fn last_number(&self, actor: Actor) -> u64 {
        self.numbers.range((actor, 0)..=(actor, u64::MAX)).next_back().map_or(0, |((_, number), _)| *number)
    }

    /// What a new change depends on: the base, its author's last change, and the heads, as many as it may name. Heads
    /// left out count as not seen.
    fn dependencies(&self, actor: Actor, number: u64) -> Vec<ChangeId> {
        let own = self.numbers.get(&(actor, number - 1)).copied();
        let mut named: BTreeSet<ChangeId> = [self.base].into_iter().chain(own).collect();
        for head in self.heads() {
            if named.len() < MAX_DEPENDENCIES {
                named.insert(head);
            }
        }
        named.into_iter().collect()
    }

    fn next_operation(&self, dependencies: &[ChangeId]) -> u64 {
        let last = dependencies.iter().filter_map(|id| self.taken.get(id)).map(|taken| taken.last_operation).max();
        last.unwrap_or(0) + 1
    }

    fn check(&self, change: &Change) -> Result<(), Unfit> {
        let contradiction = |reason| Err(Unfit::Contradiction { reason });
        let dependencies = change.dependencies();
        if change.shard() != self.shard || dependencies.binary_search(&self.base).is_err() {
            return Err(Unfit::OtherBase);
        }
        if let Some(missing) = dependencies.iter().find(|id| !self.has(id)) {
            return Err(Unfit::Missing { missing: *missing });
        }
        let (actor, number) = (change.author().actor(), change.parts().number);
        if self.numbers.contains_key(&(actor, number)) {
            return contradiction("its author wrote two changes of one number");
        }
        let follows = |id| self.taken.get(id).is_some_and(|taken| taken.author == actor && taken.number + 1 == number);
        if number > 1 && !dependencies.iter().any(follows) {
            return contradiction("it does not follow its author's last change");
        }
        if change.parts().first_operation != self.next_operation(dependencies) {
            return contradiction("its operations are numbered wrongly");
        }
        for edit in change.edits() {
            let seen = self.seen(&edit.cid, Some(dependencies));
            if seen.is_ok_and(|(saw, overwrites)| saw == edit.saw && overwrites == edit.overwrites) {
                continue;
            }
            return contradiction("it replaces what its author did not see there");
        }
        Ok(())
    }

    /// The change that made an operation; `None` for the base.
    pub(super) fn change_of(&self, stamp: &Stamp) -> Option<ChangeId> {
        let mut own = self.numbers.range((stamp.actor, 0)..=(stamp.actor, u64::MAX)).map(|(_, id)| id);
        let made = |id: &&ChangeId| self.taken.get(id).is_some_and(|taken| stamp.counter <= taken.last_operation);
        own.find(made).copied().filter(|id| *id != self.base)
    }
}

fn shown(value: &Value<'_>, id: &ObjId) -> Option<Shown> {
    let Value::Scalar(scalar) = value else { return None };
    let (ScalarValue::Bytes(record), ObjId::Id(counter, actor, _)) = (scalar.as_ref(), id) else { return None };
    let actor = Actor(actor.to_bytes().try_into().ok()?);
    Some(Shown { stamp: Stamp { counter: *counter, actor }, record: Bytes::copy_from_slice(record) })
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
