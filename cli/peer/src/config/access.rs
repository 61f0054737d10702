//! Who may use the REST API: what stands beside `basic_auth_credentials`, and which listeners must ask for a password.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_api::{Scope, Scopes};
use cluster_types::{Multiaddr, Protocol};

use super::document::{Document, Reader};
use super::error::ConfigError;
use super::table::RESTAPI;

/// The rules for users and their tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessConfig {
    /// What users may do; who is not named may do everything.
    pub scopes: BTreeMap<String, Scopes>,
    /// How long tokens live at most; none: for ever.
    pub token_lifetime: Option<Duration>,
    /// Whether an address that others than this machine reach may be served without passwords.
    pub allow_unauthenticated: bool,
}

pub(super) fn access(reader: &Reader<'_>) -> Result<AccessConfig, ConfigError> {
    const SCOPES: &str = "basic_auth_scopes";
    let users = reader.credentials("basic_auth_credentials")?.unwrap_or_default();
    let mut scopes = BTreeMap::new();
    for (user, words) in reader.headers(SCOPES)? {
        if !users.contains_key(&user) {
            return Err(reader.refuse(SCOPES, format!("{user:?} is not in basic_auth_credentials")));
        }
        // A variable holds one text for each user.
        let words: Vec<&str> = words.iter().flat_map(|words| words.split_whitespace()).collect();
        let read: Result<Vec<Scope>, _> = words.into_iter().map(str::parse).collect();
        let read = read.map_err(|error| reader.refuse(SCOPES, error.to_string()))?;
        if read.is_empty() {
            return Err(reader.refuse(SCOPES, format!("{user:?} could do nothing: name one of read, pin, admin")));
        }
        scopes.insert(user, read.into_iter().collect());
    }
    let lifetime = reader.duration("token_lifetime")?;
    Ok(AccessConfig {
        scopes,
        token_lifetime: (!lifetime.is_zero()).then_some(lifetime),
        allow_unauthenticated: reader.flag("allow_unauthenticated")?,
    })
}

/// Refuses to let everybody write who can reach this machine, unless that is said to be meant.
pub(super) fn refuse_open(document: &Document) -> Result<(), ConfigError> {
    if !document.has(&RESTAPI) {
        return Ok(());
    }
    let reader = document.reader(&RESTAPI);
    let is_guarded = reader.credentials("basic_auth_credentials")?.is_some();
    // A host of the API's own over libp2p has no secret.
    let keys = ["http_listen_multiaddress", "libp2p_listen_multiaddress"];
    let mut named = None;
    let mut open = Vec::new();
    for key in keys {
        let addresses = open_addresses(&reader.addresses(key)?);
        if !addresses.is_empty() {
            named.get_or_insert(key);
        }
        open.extend(addresses);
    }
    if is_guarded || open.is_empty() || reader.flag("allow_unauthenticated")? {
        return Ok(());
    }
    let reason = format!(
        "everyone who can reach {} could write: name users in api.restapi.basic_auth_credentials, or listen on 127.0.0.1 \
         or a unix socket; if everyone is meant, write \"allow_unauthenticated\": true into api.restapi or set \
         CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED=true",
        open.join(", ")
    );
    Err(reader.refuse(named.unwrap_or("http_listen_multiaddress"), reason))
}

/// The addresses that others than this machine reach.
pub(super) fn open_addresses(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().filter(|address| is_open(address)).map(ToString::to_string).collect()
}

fn is_open(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => !ip.is_loopback(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name != "localhost",
        Some(_) | None => false,
    }
}
