//! Reads the file, lets the environment override it, and checks the outcome.

use std::fs::File;
use std::io::{self, Read};

use serde_json::{Map, Value};

use super::document::Document;
use super::environment::Environment;
use super::error::ConfigError;
use super::folder::ConfigFolder;
use super::sections::Config;
use super::validate::validate;

/// More than any configuration has; what is larger is another file.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration, and what its reader should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Remarks for the log, one line each: unknown keys, sections that are not served yet, an open network.
    pub remarks: Vec<String>,
}

/// Loads the configuration of a folder.
pub fn load(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    let path = folder.config_file();
    let file = read(folder)?;
    if let Some(url) = file.get("source") {
        let url = url.as_str().unwrap_or_default().to_owned();
        return Err(ConfigError::Sourced { path, url });
    }
    let mut document = Document::new(&path, file);
    document.apply(environment)?;
    let config = validate(&document, folder)?;
    let remarks = remarks(&document, &config);
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
    let not_served = [
        ("api.ipfsproxy", config.ipfs_proxy.is_some()),
        ("api.pinsvcapi", config.pinning_service.is_some()),
        ("observations.tracing", config.telemetry.tracing_enabled),
    ];
    let named: Vec<&str> = not_served.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    if !named.is_empty() {
        remarks.push(format!("configured, but not served by this version yet: {}", named.join(", ")));
    }
    remarks
}
