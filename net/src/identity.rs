//! Who this peer is: the key pair in `identity.json`, as ipfs-cluster writes it.
//!
//! Ed25519, RSA and secp256k1 keys are read; new ones are Ed25519. The encoded key is kept as it was read, so that
//! writing the file again never changes it.
//!
//! **Invariant:** no Debug, Display or error of this file contains the private key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_types::{ErrorClass, PeerId, parse_peer_id};
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::file;

/// The largest identity file that is read: an RSA key of 4,096 bits, the longest that is taken, makes it 4 KiB.
const MAX_FILE: u64 = 64 * 1024;
/// First bytes of an encoded Ed25519 key: its type, and the length of the data that follows.
const ED25519: [u8; 4] = [0x08, 0x01, 0x12, 64];
/// The same for keys of programs before 2019, which repeated the public key at the end.
const ED25519_REPEATED: [u8; 4] = [0x08, 0x01, 0x12, 96];

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    id: String,
    private_key: String,
}

impl Drop for IdentityFile {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

/// The key pair of a peer.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    encoded: Zeroizing<String>,
    peer: PeerId,
}

/// An identity could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no file.
    #[error("there is no identity file {path}: create one with `ipfs-cluster-service init`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the identity file {path}: check that its owner runs this program")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the identity file {path}: check the folder's permissions and free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file has no usable content.
    #[error(
        "the identity file {path} is damaged ({problem}): restore it from a backup, or move it away and run \
         `ipfs-cluster-service init` to make a new peer"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The parts do not make an identity.
    #[error("invalid identity: {problem}")]
    Invalid {
        /// What is wrong.
        problem: &'static str,
    },
}

impl IdentityError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } => ErrorClass::NotFound,
            Self::Read { .. } | Self::Write { .. } => ErrorClass::Unavailable,
            Self::Damaged { .. } | Self::Invalid { .. } => ErrorClass::Invalid,
        }
    }
}

impl Identity {
    /// A new Ed25519 identity.
    pub fn generate() -> Self {
        let keypair = Keypair::generate_ed25519();
        let encoded = keypair.to_protobuf_encoding().expect("an Ed25519 key can be encoded");
        let encoded = Zeroizing::new(STANDARD.encode(Zeroizing::new(encoded).as_slice()));
        let peer = keypair.public().to_peer_id();
        Self { keypair, encoded, peer }
    }

    /// An identity from its parts, as in `CLUSTER_ID` and `CLUSTER_PRIVATEKEY`. Both must belong together.
    pub fn from_parts(id: &str, private_key: &str) -> Result<Self, IdentityError> {
        Self::decode(id, private_key).map_err(|problem| IdentityError::Invalid { problem })
    }

    /// An identity from its private key alone, as in `CLUSTER_PRIVATEKEY`: the key says who the peer is.
    pub fn from_private_key(private_key: &str) -> Result<Self, IdentityError> {
        Self::decode_key(private_key).map_err(|problem| IdentityError::Invalid { problem })
    }

    /// Reads an identity file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let damaged = |problem| IdentityError::Damaged { path: path.into(), problem };
        let content = Zeroizing::new(file::read_at_most(path, MAX_FILE).map_err(|cause| {
            if cause.kind() == io::ErrorKind::NotFound {
                IdentityError::Missing { path: path.into() }
            } else if cause.kind() == io::ErrorKind::InvalidData {
                damaged("it is far too large")
            } else {
                IdentityError::Read { path: path.into(), cause }
            }
        })?);
        // The parser's own message is not shown: it may quote the key.
        let parsed: IdentityFile = serde_json::from_slice(&content)
            .map_err(|_| damaged("it is not a JSON object with the texts \"id\" and \"private_key\""))?;
        Self::decode(&parsed.id, &parsed.private_key).map_err(damaged)
    }

    /// Writes an identity file that only its owner can read. An older one is replaced as a whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let content = IdentityFile { id: self.peer.to_string(), private_key: self.encoded.to_string() };
        let mut json = Zeroizing::new(serde_json::to_vec_pretty(&content).expect("two texts are valid JSON"));
        json.push(b'\n');
        file::replace(path, &json).map_err(|cause| IdentityError::Write { path: path.into(), cause })
    }

    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The private key in base64, for the identity file and nothing else.
    pub fn reveal_private_key(&self) -> &str {
        &self.encoded
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    fn decode(id: &str, private_key: &str) -> Result<Self, &'static str> {
        let id = parse_peer_id(id).map_err(|_| "\"id\" is not a peer id")?;
        let identity = Self::decode_key(private_key)?;
        if identity.peer == id { Ok(identity) } else { Err("\"id\" does not belong to \"private_key\"") }
    }

    fn decode_key(private_key: &str) -> Result<Self, &'static str> {
        let bytes = STANDARD.decode(private_key.trim()).map_err(|_| "\"private_key\" is not base64")?;
        let bytes = without_repeated_public_key(Zeroizing::new(bytes))?;
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|_| refusal(&bytes))?;
        let peer = keypair.public().to_peer_id();
        Ok(Self { keypair, encoded: Zeroizing::new(STANDARD.encode(bytes.as_slice())), peer })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why an encoded key is not taken, as far as its type tells.
fn refusal(encoded: &[u8]) -> &'static str {
    match encoded {
        [0x08, 0x00, ..] => "\"private_key\" is an RSA key that cannot be used: whole ones of 2048 to 4096 bits can",
        [0x08, 0x03, ..] => "\"private_key\" is an ECDSA key: Ed25519, RSA and secp256k1 keys can be used",
        _ => "\"private_key\" is not an Ed25519, RSA or secp256k1 key",
    }
}

/// Old Ed25519 keys hold the public key twice; the second copy must be equal and is left out.
fn without_repeated_public_key(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    if bytes.len() != 100 || !bytes.starts_with(&ED25519_REPEATED) {
        return Ok(bytes);
    }
    if bytes[36..68] != bytes[68..100] {
        return Err("\"private_key\" contradicts itself");
    }
    let mut trimmed = Zeroizing::new(ED25519.to_vec());
    trimmed.extend_from_slice(&bytes[4..68]);
    Ok(trimmed)
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
