//! Why a store cannot be opened or closed, and how failures of the engine become errors of the ports.

use std::path::{Path, PathBuf};

use cluster_core::ports::{BlockError, StateError};
use cluster_types::{BoxError, ErrorClass};
use rocksdb::ErrorKind;

/// A store cannot be opened or closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process uses the folder.
    #[error("the folder {} is in use by another process: only one peer may run on it", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The database is damaged.
    #[error(
        "the database in {} is damaged. Stop the peer, move this folder out of the way, and with the folder `state` also \
         `snapshots` beside it, and start the peer with --bootstrap and the address of a member: it joins anew and \
         fetches the state from the others. Keep what was moved until that is done",
        folder.display()
    )]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        #[source]
        cause: BoxError,
    },
    /// A newer release wrote it.
    #[error(
        "the database in {} has format {found}, and this release knows formats up to {known}: run the newer release",
        folder.display()
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// Reading or writing failed.
    #[error("cannot {operation} {}", folder.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The folder.
        folder: PathBuf,
        /// Why it failed.
        #[source]
        cause: BoxError,
    },
}

impl StoreError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Locked { .. } => ErrorClass::Conflict,
            Self::Damaged { .. } | Self::Newer { .. } | Self::Io { .. } => ErrorClass::Fatal,
        }
    }

    /// An I/O error on `folder`.
    pub(crate) fn io(operation: &'static str, folder: &Path, cause: impl Into<BoxError>) -> Self {
        Self::Io { operation, folder: folder.to_owned(), cause: cause.into() }
    }

    /// What opening the database said.
    pub(crate) fn from_open(folder: &Path, error: rocksdb::Error) -> Self {
        let missing = error.kind() == ErrorKind::IOError && error.as_ref().contains("No such file");
        if error.kind() == ErrorKind::Corruption || error.kind() == ErrorKind::InvalidArgument || missing {
            Self::Damaged { folder: folder.to_owned(), cause: error.into() }
        } else {
            Self::io("open the database in", folder, error)
        }
    }

    /// What reading the first records said.
    pub(crate) fn from_state(folder: &Path, error: StateError) -> Self {
        if matches!(error, StateError::Damaged { .. }) {
            Self::Damaged { folder: folder.to_owned(), cause: error.into() }
        } else {
            Self::io("read the database in", folder, error)
        }
    }
}

/// What a database call failed at.
pub(crate) trait Failed<T> {
    /// As an error of the state.
    fn failed_to(self, operation: &'static str) -> Result<T, StateError>;
}

impl<T> Failed<T> for Result<T, rocksdb::Error> {
    fn failed_to(self, operation: &'static str) -> Result<T, StateError> {
        self.map_err(|error| {
            if error.kind() == ErrorKind::Corruption {
                StateError::Damaged { what: error.into_string() }
            } else {
                StateError::Io { operation, cause: error.into() }
            }
        })
    }
}

impl<T> Failed<T> for std::io::Result<T> {
    fn failed_to(self, operation: &'static str) -> Result<T, StateError> {
        self.map_err(|error| StateError::Io { operation, cause: error.into() })
    }
}

/// A failure of the shared machinery, as the block store tells it.
pub(crate) fn as_block_error(error: StateError) -> BlockError {
    if let StateError::Io { operation, cause } = error {
        return BlockError::Io { operation, cause };
    }
    if let StateError::Damaged { what } = error {
        return BlockError::Damaged { what };
    }
    BlockError::Io { operation: "answer", cause: error.into() }
}
