//! The configuration folder: which files it has, how they are written, and who may work in it.
//!
//! **Invariant:** a file is replaced whole or not at all: it is written beside its place, synced, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cluster_types::Multiaddr;

use super::error::ConfigError;

/// The unix socket on which a follower's REST API is served.
const API_SOCKET: &str = "api-socket";
/// The name of the peerstore when the configuration gives none.
pub const PEERSTORE: &str = "peerstore";
/// Where state is kept, whichever engine the `datastore` section names.
const STATE_FOLDER: &str = "state";

/// A peer's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFolder(PathBuf);

impl ConfigFolder {
    /// The folder at `path`, whether it exists or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file of the folder; an absolute path stays what it is.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// `service.json`.
    pub fn config_file(&self) -> PathBuf {
        self.file("service.json")
    }

    /// `api-socket`: where a follower serves its REST API.
    pub fn api_socket(&self) -> PathBuf {
        self.file(API_SOCKET)
    }

    /// Where the state is.
    pub fn state_folder(&self) -> PathBuf {
        self.file(STATE_FOLDER)
    }

    /// `identity.json`.
    pub fn identity_file(&self) -> PathBuf {
        self.file("identity.json")
    }

    /// Makes the folder, closed to other users, unless it is there.
    pub fn create(&self) -> Result<(), ConfigError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|cause| ConfigError::Unwritable { path: self.0.clone(), cause })
    }

    /// Replaces the file at `path`, readable by its owner only.
    pub fn write_file(&self, path: &Path, content: &[u8]) -> Result<(), ConfigError> {
        replace(path, content).map_err(|cause| ConfigError::Unwritable { path: path.to_owned(), cause })
    }

    /// Replaces the peerstore with these addresses; returns how many they are.
    pub fn write_peerstore(&self, path: &Path, addresses: &[Multiaddr]) -> Result<usize, ConfigError> {
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        self.write_file(path, text.as_bytes())?;
        Ok(addresses.len())
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?.to_owned();
    name.push(".tmp");
    let beside = folder.join(name);
    // One that a crash left, or that somebody put there, may be open to others, or be a link to elsewhere.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename itself is on disk once the folder is.
    File::open(folder)?.sync_all()
}

/// The right to work in a folder; held until dropped, and given back by the system when the process dies.
#[derive(Debug)]
pub struct ExecutionLock {
    _file: File,
}

impl ExecutionLock {
    /// Takes the lock of a folder, or says that another process has it.
    pub fn acquire(folder: &ConfigFolder) -> Result<Self, ConfigError> {
        let path = folder.file("cluster.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| ConfigError::Unwritable { path: path.clone(), cause })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(ConfigError::Locked { path }),
            Err(fs::TryLockError::Error(cause)) => Err(ConfigError::Unwritable { path, cause }),
        }
    }
}

/// A port that nobody uses right now, over TCP and UDP. Nothing reserves it; whoever binds it next has it.
pub fn random_free_port() -> io::Result<u16> {
    const ATTEMPTS: usize = 16;
    for _ in 0..ATTEMPTS {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port is free over both TCP and UDP"))
}
