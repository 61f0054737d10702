//! The IPFS data model: blocks, their names and their links; UnixFS files and directories; CAR archives.
//!
//! Pure: bytes in, bytes or blocks out. Whoever reads a DAG hands in a function that fetches blocks.
//!
//! **Invariant:** what is built here has the CIDs that `ipfs add` gives it (golden tests against a real Kubo).
//! **Invariant:** every byte that is read here is hostile: lengths are checked before they are believed, depth is
//! bounded, and nothing allocates more than a small multiple of its input.

pub mod car;
pub mod chunker;
pub mod dagpb;
pub mod directory;
pub mod export;
pub mod file;
pub mod hamt;
pub mod hash;
mod ipld;
pub mod read;
mod trickle;
#[expect(clippy::module_inception, reason = "the UnixFS message of the UnixFS data model")]
pub mod unixfs;

pub use hash::{CidBuilder, HashError, HashFunction, VerifyError, identity_data, verify};
pub use ipld::{DagError, codec_name, links};

/// The largest block IPFS nodes exchange (bitswap's limit): nothing larger is made or accepted here.
pub const MAX_BLOCK: usize = 2 * 1024 * 1024;
