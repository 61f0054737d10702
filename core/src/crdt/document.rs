//! The Automerge document of a shard, built from its records.
//!
//! **Invariant:** the same records give the same bytes and the same head, wherever and in whichever order they come: keys
//! are sorted, the actor is fixed, the time is 0.

use std::collections::HashMap;
use std::fmt;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ScalarValue, hydrate};
use cluster_types::{Cid, ErrorClass};

use crate::consensus::digest::shard_of;

/// The author of every canonical document.
const ACTOR: [u8; 16] = *b"canonical-shard!";

/// A document could not be built.
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
    /// Automerge refused what should be sound.
    #[error("the document cannot be built")]
    Automerge(#[from] AutomergeError),
}

impl DocumentError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::OtherShard { .. } | Self::Twice { .. } => ErrorClass::Invalid,
            Self::Automerge(_) => ErrorClass::Fatal,
        }
    }
}

/// Names a document: Automerge's hash of its only change. Equal records, equal head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head([u8; 32]);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The canonical document of one shard.
#[derive(Debug)]
pub struct Document {
    shard: u16,
    head: Head,
    automerge: Automerge,
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
        let mut automerge = Automerge::new().with_actor(ActorId::from(ACTOR));
        // The message makes the heads of two shards differ even when both are empty.
        let options = || CommitOptions::default().with_time(0).with_message(format!("shard {shard}"));
        let mut transaction = automerge.transaction();
        transaction.init_root_from_hydrate(&hydrate::Map::from(map))?;
        let (hash, _) = transaction.commit_with(options());
        let head = Head(hash.unwrap_or_else(|| automerge.empty_commit(options())).0);
        Ok(Self { shard, head, automerge })
    }

    /// The shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Its name.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Automerge's encoding, uncompressed: equal records, equal bytes.
    pub fn save(&self) -> Vec<u8> {
        self.automerge.save_nocompress()
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
