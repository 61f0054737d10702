//! Bringing shards to what they are elsewhere, from any members that answer.
//!
//! A peer that fell behind the log, or is new, gets a *manifest* ([`crate::crdt::manifest`]): what every shard is at a log
//! index. It compares its own shards with it and pulls what differs ([`pull`](pull::Pull)) from donors ([`donor`]): the
//! records that changed since the index it has them as of, as far as a donor's tail reaches; else the records that
//! differ, found by range digests; else all of them. What comes is checked against the manifest and staged
//! ([`stage`]) beside the state, which is replaced when everything is there.
//!
//! **Invariant:** nothing of a donor counts before the sum of its shard is that of the manifest. A donor that gives
//! something else is named in the log, and another one is asked.
//! **Invariant:** of a pull that is cut off only what is in flight is lost: [`pull::IN_FLIGHT`] answers, each of about a
//! shard.
//! **Invariant:** a donor serves one answer at a time and rests while writes come in ([`turns::REST`]).

mod annex;
mod answer;
pub mod donor;
mod plan;
pub mod progress;
pub mod pull;
mod rows;
pub mod stage;
pub mod turns;
mod whole;
mod wire;

pub use annex::{AnnexAsk, AnnexSums, Group};
pub(crate) use donor::read;
pub use donor::{Donor, Lent};
pub use progress::Progress;
pub use pull::{Gather, Gathered, Kept, Pull, PullError};
pub(crate) use rows::{decode_rows, encode_rows};
pub use stage::Stage;
pub use turns::Asker;
pub(crate) use whole::{Asked, ask_whole};
pub use wire::{Ask, Part, PartKind, Told, Wanted, decode_manifest, encode_manifest};
pub(crate) use wire::{decode_excerpt, encode_excerpt};
