//! Tokens of the REST API on this machine: where their revocations are kept, and one for the programs of this folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use cluster_api::RevocationFile;
use cluster_core::ports::{Clock, SystemClock};
use cluster_types::ErrorChain;

use crate::config::{BasicAuth, ConfigFolder};

/// File of the revocations, inside the configuration folder.
const REVOCATIONS: &str = "revoked_tokens.json";
/// More than the entries of ten thousand users.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// `revoked_tokens.json` of a folder.
pub(crate) struct RevokedTokens {
    folder: ConfigFolder,
    path: PathBuf,
}

impl RevokedTokens {
    pub(crate) fn new(folder: &ConfigFolder) -> Self {
        Self { folder: folder.clone(), path: folder.file(REVOCATIONS) }
    }

    fn named(&self, cause: &dyn std::error::Error) -> io::Error {
        io::Error::other(format!("{}: {}", self.path.display(), ErrorChain(cause)))
    }
}

impl RevocationFile for RevokedTokens {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.named(&error)),
        };
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|error| self.named(&error))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(self.named(&io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes"))));
        }
        Ok(Some(content))
    }

    fn save(&self, content: &[u8]) -> io::Result<()> {
        self.folder.write_file(&self.path, content).map_err(|error| io::Error::other(ErrorChain(&error).to_string()))
    }
}

/// A token for a request that starts now, of the first user who may read; works where only a hash of the password is
/// known. Nothing if nobody may.
pub fn own_token(users: &BasicAuth, may_read: impl Fn(&str) -> bool) -> Option<String> {
    let (user, password) = users.iter().find(|(user, _)| may_read(user))?;
    cluster_api::short_token(user, password.reveal(), SystemClock.now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let place = tempfile::tempdir().unwrap();
        let file = RevokedTokens::new(&ConfigFolder::new(place.path()));
        assert_eq!(file.load().unwrap(), None);
        for content in [b"one".as_slice(), b"two and more"] {
            file.save(content).unwrap();
            assert_eq!(file.load().unwrap().as_deref(), Some(content));
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file.path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert!(file.load().unwrap_err().to_string().contains("revoked_tokens.json"));
    }
}
