//! Which tokens count no more: for each user who revoked, everything that was given out up to a moment.
//!
//! A token that does not say when it was made cannot be told from one that was made before, so once its user has revoked
//! it counts no more either; from then on all tokens of this user are given out with the moment.
//!
//! **Invariant:** a revocation holds at once, and what was answered with success holds after a restart too.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::credentials::TokenFiles;

/// The format of the file.
const VERSION: u32 = 1;

/// The file: small, one entry for each user who ever revoked.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    /// By user: tokens made up to here are revoked, in milliseconds since the Unix epoch.
    revoked_until: BTreeMap<String, i64>,
}

/// What was revoked.
pub(super) struct Revocations {
    file: Option<Arc<dyn TokenFiles>>,
    until: RwLock<BTreeMap<String, i64>>,
    /// Held while the file is written, so that an older content never follows a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Revocations {
    /// What the file holds; a file that cannot be understood is an error, as it may forbid somebody something.
    pub(super) fn load(file: Option<Arc<dyn TokenFiles>>) -> io::Result<Self> {
        let bytes = file.as_ref().map(|file| file.load()).transpose()?.flatten();
        let until = bytes.map(|bytes| read(&bytes)).transpose()?.unwrap_or_default();
        Ok(Self { file, until: RwLock::new(until), writing: tokio::sync::Mutex::default() })
    }

    /// Up to which moment the tokens of a user are revoked, if they are.
    pub(super) fn until(&self, user: &str) -> Option<i64> {
        self.until.read().get(user).copied()
    }

    /// Revokes what was given out to a user up to `now`. An error means that it may be forgotten at the next start.
    pub(super) async fn revoke(&self, user: &str, now: i64) -> io::Result<()> {
        {
            let mut until = self.until.write();
            let known = until.entry(user.to_owned()).or_insert(now);
            *known = now.max(*known);
        }
        let Some(file) = self.file.clone() else { return Ok(()) };
        let _turn = self.writing.lock().await;
        let content = Content { version: VERSION, revoked_until: self.until.read().clone() };
        let bytes = serde_json::to_vec_pretty(&content)?;
        let written = tokio::task::spawn_blocking(move || file.save(&bytes));
        written.await.map_err(io::Error::other)?
    }
}

fn read(bytes: &[u8]) -> io::Result<BTreeMap<String, i64>> {
    let content: Content = serde_json::from_slice(bytes)?;
    if content.version != VERSION {
        return Err(io::Error::other(format!("it has version {}, this program knows {VERSION}", content.version)));
    }
    Ok(content.revoked_until)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::credentials::TokenSecret;

    #[derive(Default)]
    struct Memory(Mutex<Option<Vec<u8>>>, std::sync::atomic::AtomicBool);

    impl TokenFiles for Memory {
        fn load(&self) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.lock().clone())
        }

        fn save(&self, content: &[u8]) -> io::Result<()> {
            if self.1.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(io::Error::other("full"));
            }
            *self.0.lock() = Some(content.to_vec());
            Ok(())
        }

        fn secret(&self) -> io::Result<TokenSecret> {
            Ok([7; 32])
        }
    }

    #[tokio::test]
    async fn revocations_are_there_after_a_restart_and_never_go_back() {
        let file = Arc::new(Memory::default());
        let first = Revocations::load(Some(Arc::clone(&file) as _)).unwrap();
        assert_eq!(first.until("ann"), None);
        first.revoke("ann", 20).await.unwrap();
        first.revoke("bob", 10).await.unwrap();
        first.revoke("ann", 5).await.unwrap();
        let second = Revocations::load(Some(Arc::clone(&file) as _)).unwrap();
        assert_eq!([second.until("ann"), second.until("bob"), second.until("eve")], [Some(20), Some(10), None]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_holds_until_the_end() {
        let file = Arc::new(Memory::default());
        let known = Revocations::load(Some(Arc::clone(&file) as _)).unwrap();
        file.1.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(known.revoke("ann", 20).await.is_err());
        assert_eq!(known.until("ann"), Some(20));
    }

    #[test]
    fn a_file_that_is_not_understood_is_not_taken_for_an_empty_one() {
        for content in
            ["", "{", "{}", r#"{"version":2,"revoked_until":{}}"#, r#"{"version":1,"revoked_until":{"a":"b"}}"#]
        {
            let file = Memory(Mutex::new(Some(content.into())), false.into());
            assert!(Revocations::load(Some(Arc::new(file))).is_err(), "{content}");
        }
    }
}
