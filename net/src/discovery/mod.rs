//! What is known of other peers, when to dial whom, and how that survives a restart.

mod address;
mod book;
mod peerstore;

pub(crate) use address::{announced, peer_of, with_peer, without_peer};
pub(crate) use book::AddressBook;
pub(crate) use peerstore::{keep_peerstore, load_peerstore};
