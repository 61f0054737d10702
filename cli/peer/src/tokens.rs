//! Tokens of the REST API on this machine: where their revocations and their secret are kept, and one for the programs of
//! this folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cluster_api::{TokenFiles, TokenSecret};
use cluster_core::ports::{Clock, SystemClock};
use cluster_types::ErrorChain;

use crate::config::{BasicAuth, ConfigFolder};

/// File of the revocations, inside the configuration folder.
const REVOCATIONS: &str = "revoked_tokens.json";
/// File of those of the pinning service.
const PINNING_REVOCATIONS: &str = "revoked_pinning_tokens.json";
/// File of the secret, inside the configuration folder: 64 hexadecimal digits.
const SECRET: &str = "token_secret";
/// More than the entries of ten thousand users.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The files of a folder that tokens need.
pub(crate) struct FolderTokens {
    folder: ConfigFolder,
    revocations: &'static str,
}

impl FolderTokens {
    /// Those of the REST API.
    pub(crate) fn new(folder: &ConfigFolder) -> Self {
        Self { folder: folder.clone(), revocations: REVOCATIONS }
    }

    /// Those of the pinning service, which are revoked there.
    pub(crate) fn of_pinning_service(folder: &ConfigFolder) -> Self {
        Self { folder: folder.clone(), revocations: PINNING_REVOCATIONS }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error)),
        };
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|error| named(&path, &error))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(named(&path, &io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes"))));
        }
        Ok(Some(content))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let written = self.folder.write_file(&self.folder.file(name), content);
        written.map_err(|error| io::Error::other(ErrorChain(&error).to_string()))
    }

    /// The secret, if it was made.
    fn known_secret(&self) -> io::Result<Option<TokenSecret>> {
        let Some(text) = self.read(SECRET)? else { return Ok(None) };
        let mut secret = TokenSecret::default();
        hex::decode_to_slice(text.trim_ascii(), &mut secret)
            .map_err(|error| named(&self.folder.file(SECRET), &error))?;
        Ok(Some(secret))
    }
}

fn named(path: &Path, cause: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {}", path.display(), ErrorChain(cause)))
}

impl TokenFiles for FolderTokens {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.read(self.revocations)
    }

    fn save(&self, content: &[u8]) -> io::Result<()> {
        self.write(self.revocations, content)
    }

    fn secret(&self) -> io::Result<TokenSecret> {
        if let Some(known) = self.known_secret()? {
            return Ok(known);
        }
        let made: TokenSecret = rand::random();
        self.write(SECRET, hex::encode(made).as_bytes())?;
        Ok(made)
    }
}

/// A token for a request that looks and starts now, of the first user who may; works where only a hash of the password is
/// known, once the peer has run. Nothing if nobody may.
pub fn own_token(users: &BasicAuth, folder: &ConfigFolder, may_read: impl Fn(&str) -> bool) -> Option<String> {
    let (user, password) = users.iter().find(|(user, _)| may_read(user))?;
    let secret = || FolderTokens::new(folder).known_secret().ok().flatten();
    cluster_api::short_token(user, password.reveal(), secret, SystemClock.now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let place = tempfile::tempdir().unwrap();
        let file = FolderTokens::new(&ConfigFolder::new(place.path()));
        assert_eq!(file.load().unwrap(), None);
        for content in [b"one".as_slice(), b"two and more"] {
            file.save(content).unwrap();
            assert_eq!(file.load().unwrap().as_deref(), Some(content));
        }
        assert_eq!(mode(&place.path().join(REVOCATIONS)), 0o600);
        std::fs::write(place.path().join(REVOCATIONS), vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert!(file.load().unwrap_err().to_string().contains("revoked_tokens.json"));
    }

    fn mode(path: &Path) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
    }

    #[test]
    fn a_secret_is_made_once_and_one_that_is_none_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let files = FolderTokens::new(&ConfigFolder::new(place.path()));
        assert_eq!(files.known_secret().unwrap(), None);
        let made = files.secret().unwrap();
        assert_eq!((files.secret().unwrap(), files.known_secret().unwrap()), (made, Some(made)));
        assert_eq!(mode(&place.path().join(SECRET)), 0o600);
        for broken in ["", "zz", &"a".repeat(63), &"a".repeat(65)] {
            std::fs::write(place.path().join(SECRET), broken).unwrap();
            let error = files.secret().unwrap_err().to_string();
            assert!(error.contains("token_secret"), "{error}");
        }
    }
}
