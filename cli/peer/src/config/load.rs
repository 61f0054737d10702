//! Reads the file, lets the environment override it, and checks the outcome.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cluster_types::{Multiaddr, Protocol};
use serde_json::{Map, Value};

use super::document::Document;
use super::environment::Environment;
use super::error::ConfigError;
use super::folder::ConfigFolder;
use super::sections::{Config, IdentitySource, IpfsConfig};
use super::source::fetch_source;
use super::table::{CLUSTER, IPFSHTTP, RESTAPI};
use super::validate::{identity, kubo, refuse_unprotected, validate};

/// More than any configuration has; what is larger is another file.
pub(super) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration, and what its reader should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Remarks for the log, one line each: unknown keys, sections that are not served yet, an open network.
    pub remarks: Vec<String>,
}

/// Loads the configuration of a folder for a peer that is to run by it.
pub fn load(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    let document = document(folder, environment)?;
    let loaded = checked(&document, folder)?;
    refuse_unprotected(&document)?;
    Ok(loaded)
}

/// Loads the configuration of a folder for a peer that only follows, whatever else it asks for: the REST API is served on
/// the unix socket of the folder unless the environment names another address, and nothing else is.
pub fn load_follower(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    let mut document = document(folder, environment)?;
    document.follow(&api_socket(folder));
    let mut loaded = checked(&document, folder)?;
    // What a member asks for must not throw away what the owner of this machine keeps.
    loaded.config.cluster.collects_for_others = false;
    refuse_unprotected(&document)?;
    Ok(loaded)
}

/// Where the REST API of a folder's follower is, as [`load_follower`] has it served. Reads nothing but the environment.
pub fn follower_api(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Vec<Multiaddr>, ConfigError> {
    let mut document = Document::new(&folder.config_file(), Map::new());
    document.apply(environment)?;
    document.follow(&api_socket(folder));
    document.reader(&RESTAPI).addresses("http_listen_multiaddress")
}

/// The Kubo of a peer whose configuration cannot be had: the usual one, or that of the environment.
pub fn kubo_of_environment(environment: &dyn Environment) -> Result<IpfsConfig, ConfigError> {
    let mut document = Document::new(Path::new(""), Map::new());
    document.apply(environment)?;
    kubo(&document.reader(&IPFSHTTP)).map(IpfsConfig::Kubo)
}

impl IdentitySource {
    /// The identity that the environment brings, if it does.
    pub fn of_environment(environment: &dyn Environment) -> Result<Self, ConfigError> {
        let mut document = Document::new(Path::new(""), Map::new());
        document.apply(environment)?;
        identity(&document, &document.reader(&CLUSTER))
    }
}

fn api_socket(folder: &ConfigFolder) -> PathBuf {
    std::path::absolute(folder.api_socket()).unwrap_or_else(|_| folder.api_socket())
}

/// Where the configuration of a folder is fetched from, if it does not stand there itself.
pub fn source_of(folder: &ConfigFolder) -> Result<Option<String>, ConfigError> {
    Ok(read(folder)?.get("source").map(|url| url.as_str().unwrap_or_default().to_owned()))
}

/// Loads a configuration that was just written.
pub(super) fn read_back(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    checked(&document(folder, environment)?, folder)
}

fn document(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Document, ConfigError> {
    let mut path = folder.config_file();
    let mut file = read(folder)?;
    if let Some(url) = file.get("source").map(|url| url.as_str().unwrap_or_default().to_owned()) {
        file = fetch_source(&url)?;
        path = url.into();
    }
    let mut document = Document::new(&path, file);
    document.apply(environment)?;
    Ok(document)
}

fn checked(document: &Document, folder: &ConfigFolder) -> Result<Loaded, ConfigError> {
    let config = validate(document, folder)?;
    let remarks = remarks(document, &config);
    Ok(Loaded { config, remarks })
}

fn read(folder: &ConfigFolder) -> Result<Map<String, Value>, ConfigError> {
    let path = folder.config_file();
    let unreadable = |cause: io::Error| ConfigError::Unreadable { path: path.clone(), cause };
    let file = File::open(&path).map_err(|cause| {
        if cause.kind() == io::ErrorKind::NotFound {
            ConfigError::Missing { path: path.clone() }
        } else {
            unreadable(cause)
        }
    })?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path, bytes, limit: MAX_FILE_BYTES });
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|cause| ConfigError::NotJson { path, cause })
}

fn remarks(document: &Document, config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    let unknown = document.unknown_keys();
    if !unknown.is_empty() {
        remarks.push(format!("unknown keys in {} are ignored: {}", document.path().display(), unknown.join(", ")));
    }
    if config.cluster.secret.is_none() {
        remarks.push("cluster.secret is empty: the cluster's network is open to everyone who can reach it".to_owned());
    }
    if let Some(rest) = config.rest_api.as_ref().filter(|rest| rest.basic_auth.is_none()) {
        let open: Vec<String> =
            rest.listen_addresses.iter().filter(|address| is_open(address)).map(ToString::to_string).collect();
        if !open.is_empty() {
            remarks.push(format!(
                "api.restapi.basic_auth_credentials is empty: everyone who can reach {} may write",
                open.join(", ")
            ));
        }
    }
    let unserved = document.unserved_keys();
    if !unserved.is_empty() {
        remarks.push(format!("configured, but not or not fully served by this version yet: {}", unserved.join(", ")));
    }
    remarks
}

/// Whether others than this machine reach an address.
fn is_open(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => !ip.is_loopback(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name != "localhost",
        Some(_) | None => false,
    }
}
