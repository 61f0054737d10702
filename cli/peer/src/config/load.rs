//! Reads the file, lets the environment override it, and checks the outcome.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cluster_types::Multiaddr;
use serde_json::{Map, Value};

use super::access::open_addresses;
use super::addresses::is_tcp;
use super::document::Document;
use super::environment::Environment;
use super::error::ConfigError;
use super::folder::ConfigFolder;
use super::sections::{BasicAuth, Config, ConsensusMode, IdentityHalf, IdentitySource, IpfsConfig, TrustedPeers};
use super::source::{drop_identity, drop_places, fetch_source};
use super::table::{CLUSTER, IPFSHTTP, RESTAPI};
use super::validate::{identity, kubo, refuse_unprotected, validate};
use super::value::HIDDEN;

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

/// Loads the configuration of a folder for work on the state of a stopped peer: what a peer must not serve is no reason
/// against it.
pub fn load_stopped(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    checked(&document(folder, environment)?, folder)
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

/// Where the REST API of a follower is, and who may ask.
#[derive(Clone, Debug)]
pub struct FollowerApi {
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// Whether it speaks TLS.
    pub has_tls: bool,
    /// Who may ask; everyone when there is nobody.
    pub basic_auth: Option<BasicAuth>,
}

/// Where the REST API of a folder's follower is, as [`load_follower`] has it served. Reads nothing but the environment.
pub fn follower_api(folder: &ConfigFolder, environment: &dyn Environment) -> Result<FollowerApi, ConfigError> {
    let mut document = Document::new(&folder.config_file(), Map::new());
    document.apply(environment)?;
    document.follow(&api_socket(folder));
    let reader = document.reader(&RESTAPI);
    Ok(FollowerApi {
        addresses: reader.addresses("http_listen_multiaddress")?,
        has_tls: !reader.text("ssl_cert_file")?.is_empty(),
        basic_auth: reader.credentials("basic_auth_credentials")?,
    })
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

    /// The identity that the environment brings, or that stands in the configuration of a folder as old ones have it. A
    /// file that is not there, or cannot be understood, has none.
    pub fn of_folder(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Self, ConfigError> {
        let file = match read(folder) {
            Ok(file) => file,
            Err(ConfigError::Missing { .. } | ConfigError::NotJson { .. }) => Map::new(),
            Err(error) => return Err(error),
        };
        let mut document = Document::new(&folder.config_file(), file);
        document.apply(environment)?;
        let reader = document.reader(&CLUSTER);
        let source = identity(&document, &reader)?;
        if matches!(source.half, Some(IdentityHalf::Id(_))) && !folder.identity_file().exists() {
            return Err(
                reader.refuse("id", "there is no identity file that it could be the peer of: give the key, too")
            );
        }
        Ok(source)
    }
}

fn api_socket(folder: &ConfigFolder) -> PathBuf {
    std::path::absolute(folder.api_socket()).unwrap_or_else(|_| folder.api_socket())
}

/// Where the configuration of a folder is fetched from, if it does not stand there itself.
pub fn source_of(folder: &ConfigFolder) -> Result<Option<String>, ConfigError> {
    Ok(source_in(&read(folder)?))
}

/// Checks the text of a configuration that is to be written into a folder.
pub(super) fn check_text(
    text: &str,
    folder: &ConfigFolder,
    environment: &dyn Environment,
) -> Result<Loaded, ConfigError> {
    let path = folder.config_file();
    let file = serde_json::from_str(text).map_err(|cause| ConfigError::NotJson { path: path.clone(), cause })?;
    let mut document = Document::new(&path, file);
    document.apply(environment)?;
    let loaded = checked(&document, folder)?;
    refuse_unprotected(&document)?;
    Ok(loaded)
}

/// The source that a file names; an empty one is none.
pub(super) fn source_in(file: &Map<String, Value>) -> Option<String> {
    match file.get("source")? {
        Value::Null => None,
        Value::String(url) => (!url.is_empty()).then(|| url.clone()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.to_string()),
    }
}

/// A URL without the user and password that it may hold.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}{path}"),
        None => url.to_owned(),
    }
}

/// Loads what stands in a file, without an environment, for a peer that is to run by it.
#[cfg(any(test, fuzzing))]
pub(crate) fn load_file(file: Map<String, Value>, folder: &ConfigFolder) -> Result<Loaded, ConfigError> {
    let document = Document::new(&folder.config_file(), file);
    let loaded = checked(&document, folder)?;
    refuse_unprotected(&document)?;
    Ok(loaded)
}

fn document(folder: &ConfigFolder, environment: &dyn Environment) -> Result<Document, ConfigError> {
    let mut path = folder.config_file();
    let mut file = read(folder)?;
    let mut notes = Vec::new();
    let source = source_in(&file);
    file.remove("source");
    if let Some(url) = source {
        if !file.is_empty() {
            let beside: Vec<&str> = file.keys().map(String::as_str).collect();
            notes.push(format!("beside \"source\" in {}, these are not used: {}", path.display(), beside.join(", ")));
        }
        file = fetch_source(&url)?;
        path = without_password(&url).into();
        notes.extend(drop_identity(&mut file));
        notes.extend(drop_places(&mut file));
    }
    let mut document = Document::new(&path, file);
    for line in notes {
        document.note(line);
    }
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
    let mut remarks = document.notes().to_vec();
    let unknown = document.unknown_keys();
    if !unknown.is_empty() {
        remarks.push(format!("unknown keys in {} are ignored: {}", document.path().display(), unknown.join(", ")));
    }
    if config.cluster.secret.is_none() {
        remarks.push("cluster.secret is empty: the cluster's network is open to everyone who can reach it".to_owned());
    }
    if let ConsensusMode::Crdt { trusted: TrustedPeers::Only(trusted), .. } = &config.consensus.mode
        && trusted.is_empty()
        && !config.cluster.follower_mode
    {
        remarks.push(
            "consensus.crdt.trusted_peers is missing or empty: this peer trusts only itself, lets nobody in and joins only \
             with --bootstrap; name the others on each of them, or write [\"*\"]"
                .to_owned(),
        );
    }
    for (section, name) in [(&config.rest_api, "restapi"), (&config.pinning_service, "pinsvcapi")] {
        let Some(section) = section.as_ref().filter(|section| section.basic_auth.is_none()) else { continue };
        let mut open = open_addresses(&section.listen_addresses);
        open.extend(section.libp2p.iter().flat_map(|host| open_addresses(&host.listen_addresses)));
        if !open.is_empty() {
            let open = open.join(", ");
            remarks.push(format!("api.{name}.allow_unauthenticated: everyone who can reach {open} may write"));
        }
    }
    if let Some(proxy) = &config.ipfs_proxy {
        let open = open_addresses(&proxy.listen_addresses);
        if !open.is_empty() {
            let open = open.join(", ");
            remarks
                .push(format!("api.ipfsproxy asks for no password: everyone who can reach {open} may pin and unpin"));
        }
    }
    let unserved = document.unserved_keys();
    if !unserved.is_empty() {
        remarks.push(format!("configured, but not or not fully served by this version yet: {}", unserved.join(", ")));
    }
    let meaningless = document.meaningless_keys();
    if !meaningless.is_empty() {
        let mut line = format!("set, but without meaning here: {}", meaningless.join(", "));
        if meaningless.iter().any(|key| is_place(key)) {
            line.push_str(&format!("; the state is in {}", config.state_folder.display()));
        }
        remarks.push(line);
    }
    let replaced = document.replaced_keys();
    if !replaced.is_empty() {
        remarks.push(format!("values that cannot be used stand for the default: {}", replaced.join(", ")));
    }
    remarks.extend(left_out(document));
    remarks
}

/// The listen addresses of the swarm that are no use here.
fn left_out(document: &Document) -> Option<String> {
    let mut addresses = document.reader(&CLUSTER).addresses("listen_multiaddress").ok()?;
    addresses.retain(|address| !is_tcp(address) && !is_default_quic(address));
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let why = "the swarm listens on /ip4/<address>/tcp/<port> and /ip6/<address>/tcp/<port> only";
    (!addresses.is_empty()).then(|| format!("cluster.listen_multiaddress: {why}, not on {}", addresses.join(", ")))
}

/// Every default file of the original has this one, on some port; in a private network it has no effect there either.
fn is_default_quic(address: &Multiaddr) -> bool {
    let text = address.to_string();
    text.starts_with("/ip4/0.0.0.0/udp/") && text.ends_with("/quic")
}

/// Whether a key says where the original keeps its state.
fn is_place(key: &str) -> bool {
    let end = key.rsplit(['.', '_']).next().unwrap_or_default();
    ["folder", "FOLDER", "DATAFOLDER"].contains(&end)
}
