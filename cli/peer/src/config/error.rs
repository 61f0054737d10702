//! Why a configuration cannot be used, in words that say what to change.

use std::io;
use std::path::PathBuf;

use cluster_types::{BoxError, ErrorClass};

/// A configuration cannot be read, used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no configuration.
    #[error("{path} does not exist: run `ipfs-cluster-service init` first", path = path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Unwritable {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{path} has {bytes} bytes, more than the {limit} a configuration may have", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most it may have.
        limit: u64,
    },
    /// The file is not a JSON object.
    #[error("{path} is not valid JSON: repair it, or write a new one with `init`", path = path.display())]
    NotJson {
        /// Which file.
        path: PathBuf,
        /// Where the text goes wrong.
        #[source]
        cause: serde_json::Error,
    },
    /// A section is not a JSON object.
    #[error("{key} in {path} must be a JSON object", path = path.display())]
    NotAnObject {
        /// Which section.
        key: String,
        /// Which file.
        path: PathBuf,
    },
    /// The file points to a configuration elsewhere, and that cannot be had.
    #[error("cannot fetch the configuration from {url:?}")]
    SourceUnreachable {
        /// Where it points.
        url: String,
        /// Why nothing came.
        #[source]
        cause: BoxError,
    },
    /// The configuration elsewhere points elsewhere.
    #[error("a sourced configuration cannot point to another source ({url})")]
    SourceOfSource {
        /// Where it was fetched.
        url: String,
    },
    /// A value cannot be used.
    #[error("{key} = {value} ({origin}): {reason}")]
    BadValue {
        /// Its key, with the sections it stands in.
        key: String,
        /// The value as written; hidden when it is a secret.
        value: String,
        /// The file or the environment variable it was written in.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that has no default is missing.
    #[error("{message} ({path})", path = path.display())]
    Undefined {
        /// What is missing.
        message: String,
        /// Which file.
        path: PathBuf,
    },
    /// Sections contradict each other.
    #[error("{message} ({path})", path = path.display())]
    Contradiction {
        /// Which, and what to do.
        message: String,
        /// Which file.
        path: PathBuf,
    },
    /// Another process works in the same folder.
    #[error(
        "{path} is held by another process working in this folder: \
         stop it first, or name another folder with --config",
        path = path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
}

impl ConfigError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } => ErrorClass::NotFound,
            Self::Unreadable { .. }
            | Self::Unwritable { .. }
            | Self::Locked { .. }
            | Self::SourceUnreachable { .. } => ErrorClass::Unavailable,
            Self::TooLarge { .. }
            | Self::NotJson { .. }
            | Self::NotAnObject { .. }
            | Self::SourceOfSource { .. }
            | Self::BadValue { .. }
            | Self::Undefined { .. }
            | Self::Contradiction { .. } => ErrorClass::Invalid,
        }
    }
}
