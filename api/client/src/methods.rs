//! One method per call of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_types::{
    Alert, Bandwidth, Cid, Commit, ConnectGraph, ErrorChain, Event, EventPlace, GlobalPinInfo, GlobalRepoGc,
    GoDuration, Id, Metric, PeerId, Pin, PinOptions, StateReport,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiFailure, ClientError};
use crate::stream::{Items, items};
use crate::{Client, Endpoint};

/// Characters of a path that stand for themselves.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// Characters of one part of a path that stand for themselves.
const SEGMENT: &AsciiSet = &PATH.add(b'/');
/// The header of a write that says how it was accepted.
const COMMIT: &str = "x-cluster-commit";
/// The longest answer read that is one object, in bytes: far more than the removed blocks of a collection need.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// The longest error body read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// A path to pin or unpin: `/ipfs/<cid>…`, `/ipns/…` or `/ipld/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPath(String);

impl PinPath {
    /// Reads a path; a bare CID means `/ipfs/<cid>`.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let known = ["/ipfs/", "/ipns/", "/ipld/"].iter().any(|prefix| text.starts_with(prefix));
        let path = if known { text.to_owned() } else { format!("/ipfs/{}", text.trim_start_matches('/')) };
        let path = path.trim_end_matches('/').to_owned();
        let first = path.split('/').nth(2).unwrap_or_default();
        // A part such as `..` would make this another call.
        let strays = path.split('/').skip(2).any(|part| matches!(part, "" | "." | ".."));
        if strays || first.is_empty() || (!path.starts_with("/ipns/") && first.parse::<Cid>().is_err()) {
            return Err(ClientError::Local { reason: format!("{text:?} is neither a CID nor an IPFS path") });
        }
        Ok(Self(path))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pin or unpin that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The pin: as it stands, or as it stood before it was removed.
    pub pin: Pin,
    /// How it was accepted; `None`: the peer does not say, as peers of the original.
    pub commit: Option<Commit>,
}

/// Which pins of a listing are wanted; by default all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Comma list of kinds of pins, or of statuses; empty: all.
    pub filter: String,
    /// Only those whose name begins with this.
    pub name_prefix: Option<String>,
    /// Only those with these texts in their metadata.
    pub metadata: BTreeMap<String, String>,
    /// Only those that come after this one: the last of the part before.
    pub after: Option<Cid>,
    /// At most so many; fewer are the end. Without it there is no end but that of the listing.
    pub limit: Option<u32>,
}

impl Listing {
    /// All that a filter lets through.
    pub fn of(filter: &str) -> Self {
        Self { filter: filter.to_owned(), ..Self::default() }
    }

    fn query(&self) -> Vec<(String, String)> {
        let mut query = vec![("filter".to_owned(), self.filter.clone())];
        query.extend(self.name_prefix.clone().map(|prefix| ("name-prefix".to_owned(), prefix)));
        query.extend(self.metadata.iter().map(|(key, text)| (format!("meta-{key}"), text.clone())));
        query.extend(self.after.map(|cid| ("after".to_owned(), cid.to_string())));
        query.extend(self.limit.map(|limit| ("limit".to_owned(), limit.to_string())));
        query
    }
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Client {
    /// Who the peer is.
    pub async fn id(&self) -> Result<Id, ClientError> {
        self.one(Method::GET, "/id", &[]).await
    }

    /// Its version.
    pub async fn version(&self) -> Result<String, ClientError> {
        self.one::<Version>(Method::GET, "/version", &[]).await.map(|version| version.version)
    }

    /// Who the members are.
    pub async fn peers(&self) -> Result<Items<Id>, ClientError> {
        self.many(Method::GET, "/peers", &[]).await
    }

    /// Makes a peer a member; the peer that answers says who it is.
    pub async fn add_peer(&self, peer: &PeerId) -> Result<Id, ClientError> {
        let body = serde_json::json!({ "peer_id": peer.to_base58() });
        document(self.reach(|endpoint| self.request(endpoint, Method::POST, "/peers").json(&body)).await?).await
    }

    /// Whether the peer is alive; says nothing of its IPFS node.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.send(Method::GET, "/health", &[]).await.map(drop)
    }

    /// A token for the user who asks, to be used as [`ClientConfig::bearer`](crate::ClientConfig::bearer).
    pub async fn token(&self) -> Result<String, ClientError> {
        self.one::<Token>(Method::POST, "/token", &[]).await.map(|token| token.token)
    }

    /// A token that ends after a while, and allows no more than some of `read`, `pin` and `admin`. Peers of the original
    /// give one without end that allows everything.
    pub async fn token_for(&self, lifetime: Option<Duration>, scopes: &[&str]) -> Result<String, ClientError> {
        let lifetime = lifetime.map(|lifetime| ("expire-in".to_owned(), GoDuration(lifetime).to_string()));
        let scopes = (!scopes.is_empty()).then(|| ("scope".to_owned(), scopes.join(",")));
        let query: Vec<(String, String)> = lifetime.into_iter().chain(scopes).collect();
        self.one::<Token>(Method::POST, "/token", &query).await.map(|token| token.token)
    }

    /// Takes back all tokens of the user who asks, at the peer that answers.
    pub async fn revoke_tokens(&self) -> Result<(), ClientError> {
        self.send(Method::DELETE, "/token", &[]).await.map(drop)
    }

    /// What the peer sent to others and received from them, by protocol; empty if it does not count.
    pub async fn bandwidth(&self) -> Result<BTreeMap<String, Bandwidth>, ClientError> {
        let counted: Option<BTreeMap<String, Bandwidth>> = self.one(Method::GET, "/health/bandwidth", &[]).await?;
        Ok(counted.unwrap_or_default())
    }

    /// Removes a member.
    pub async fn remove_peer(&self, peer: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &format!("/peers/{}", encode(peer, SEGMENT)), &[]).await.map(drop)
    }

    /// Pins what a path leads to.
    pub async fn pin(&self, path: &PinPath, options: &PinOptions) -> Result<Written, ClientError> {
        self.write(Method::POST, &format!("/pins{}", encode(path.as_str(), PATH)), &query(options)).await
    }

    /// Unpins what a path leads to.
    pub async fn unpin(&self, path: &PinPath) -> Result<Written, ClientError> {
        self.write(Method::DELETE, &format!("/pins{}", encode(path.as_str(), PATH)), &[]).await
    }

    /// The pinset, or a part of it.
    pub async fn allocations(&self, wanted: &Listing) -> Result<Items<Pin>, ClientError> {
        self.many(Method::GET, "/allocations", &wanted.query()).await
    }

    /// One pin.
    pub async fn allocation(&self, cid: &Cid) -> Result<Pin, ClientError> {
        self.one(Method::GET, &format!("/allocations/{cid}"), &[]).await
    }

    /// How pins are doing; with `local` as far as the asked peer knows by itself.
    pub async fn statuses(&self, wanted: &Listing, local: bool) -> Result<Items<GlobalPinInfo>, ClientError> {
        let mut query = vec![("local".to_owned(), local.to_string())];
        query.extend(wanted.query());
        self.many(Method::GET, "/pins", &query).await
    }

    /// How some pins are doing.
    pub async fn statuses_of(&self, cids: &[Cid], local: bool) -> Result<Items<GlobalPinInfo>, ClientError> {
        let list = cids.iter().map(Cid::to_string).collect::<Vec<_>>().join(",");
        let query = [("local".to_owned(), local.to_string()), ("cids".to_owned(), list)];
        self.many(Method::GET, "/pins", &query).await
    }

    /// How one pin is doing.
    pub async fn status(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo, ClientError> {
        self.one(Method::GET, &format!("/pins/{cid}"), &[("local".to_owned(), local.to_string())]).await
    }

    /// Tries again what failed; lists what is tried.
    pub async fn recover_all(&self, local: bool) -> Result<Items<GlobalPinInfo>, ClientError> {
        self.many(Method::POST, "/pins/recover", &[("local".to_owned(), local.to_string())]).await
    }

    /// Tries one pin again.
    pub async fn recover(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo, ClientError> {
        let query = [("local".to_owned(), local.to_string())];
        self.one(Method::POST, &format!("/pins/{cid}/recover"), &query).await
    }

    /// Names of metrics.
    pub async fn metric_names(&self) -> Result<Vec<String>, ClientError> {
        self.list("/monitor/metrics").await
    }

    /// The metrics of a name.
    pub async fn metrics(&self, name: &str) -> Result<Vec<Metric>, ClientError> {
        self.list(&format!("/monitor/metrics/{}", encode(name, SEGMENT))).await
    }

    /// Metrics that were not renewed.
    pub async fn alerts(&self) -> Result<Vec<Alert>, ClientError> {
        self.list("/health/alerts").await
    }

    /// Who is connected to whom.
    pub async fn connect_graph(&self) -> Result<ConnectGraph, ClientError> {
        self.one(Method::GET, "/health/graph", &[]).await
    }

    /// Collects garbage on the nodes.
    pub async fn collect_garbage(&self, local: bool) -> Result<GlobalRepoGc, ClientError> {
        self.one(Method::POST, "/ipfs/gc", &[("local".to_owned(), local.to_string())]).await
    }

    /// Where the peer is in the log.
    pub async fn state(&self) -> Result<StateReport, ClientError> {
        self.one(Method::GET, "/state", &[]).await
    }

    /// What lost when writes made apart were merged, newest first, from before a place. A peer gives at most
    /// [`Event::MAX_LIMIT`] at a time.
    pub async fn events(&self, before: Option<EventPlace>, limit: usize) -> Result<Items<Event>, ClientError> {
        let mut query = vec![("limit".to_owned(), limit.to_string())];
        query.extend(before.map(|before| ("before".to_owned(), before.to_string())));
        self.many(Method::GET, "/events", &query).await
    }

    async fn write(&self, method: Method, path: &str, query: &[(String, String)]) -> Result<Written, ClientError> {
        let response = self.send(method, path, query).await?;
        let commit = response.headers().get(COMMIT).and_then(|commit| commit.to_str().ok()?.parse().ok());
        Ok(Written { pin: document(response).await?, commit })
    }

    async fn one<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
    ) -> Result<T, ClientError> {
        document(self.send(method, path, query).await?).await
    }

    /// A list; `null` is an empty one.
    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        Ok(self.one::<Option<Vec<T>>>(Method::GET, path, &[]).await?.unwrap_or_default())
    }

    async fn many<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Items<T>, ClientError> {
        self.send(method, path, query).await.map(items)
    }

    /// Sends a request without a body.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
    ) -> Result<reqwest::Response, ClientError> {
        self.reach(|endpoint| self.request(endpoint, method.clone(), path).query(query)).await
    }

    /// Sends what `build` makes to the first endpoint that can be reached; an error answer becomes an error.
    pub(crate) async fn reach(
        &self,
        build: impl Fn(&Endpoint) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let mut failed = None;
        for endpoint in &self.http {
            match build(endpoint).send().await {
                Ok(response) => return judge(response).await,
                Err(cause) => {
                    let untouched = cause.is_connect();
                    let endpoint = endpoint.name.clone();
                    if cause.is_timeout() && !untouched {
                        return Err(ClientError::Timeout { endpoint });
                    }
                    let error = ClientError::Connection { endpoint, cause };
                    // What may have been sent is not sent again.
                    if !untouched {
                        return Err(error);
                    }
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| ClientError::Local { reason: "no API address was given".to_owned() }))
    }

    pub(crate) fn request(&self, endpoint: &Endpoint, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = endpoint.http.request(method, format!("{}{path}", endpoint.base));
        match (&self.basic_auth, &self.bearer) {
            (Some((user, password)), _) => request.basic_auth(user, Some(password)),
            (None, Some(token)) => request.bearer_auth(token),
            (None, None) => request,
        }
    }
}

/// An answer that is one object.
async fn document<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, ClientError> {
    let body = read(response, MAX_ANSWER).await?;
    if body.len() > MAX_ANSWER {
        return Err(ClientError::BadAnswer { reason: format!("it is longer than {MAX_ANSWER} bytes") });
    }
    serde_json::from_slice(&body).map_err(|error| ClientError::BadAnswer { reason: error.to_string() })
}

/// An error answer becomes an error.
async fn judge(response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = read(response, MAX_ERROR).await.unwrap_or_default();
    let said = serde_json::from_slice::<ApiFailure>(&body);
    Err(ClientError::Api(said.unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body);
        let message = if text.trim().is_empty() { status.to_string() } else { text.trim().to_owned() };
        ApiFailure { code: status.as_u16(), message }
    })))
}

/// The body, or a little more than `most` bytes of it.
async fn read(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| cut_off(&error))? {
        body.extend_from_slice(&piece);
        if body.len() > most {
            break;
        }
    }
    Ok(body)
}

pub(crate) fn cut_off(error: &reqwest::Error) -> ClientError {
    if error.is_timeout() {
        return ClientError::BadAnswer { reason: "its end did not come within the time that was allowed".to_owned() };
    }
    ClientError::BadAnswer { reason: format!("it was cut off: {}", ErrorChain(error)) }
}

fn encode(path: &str, plain: &'static AsciiSet) -> String {
    utf8_percent_encode(path, plain).to_string()
}

/// Pin options as the API takes them.
pub(crate) fn query(options: &PinOptions) -> Vec<(String, String)> {
    let peers = options.user_allocations.iter().map(|peer: &PeerId| peer.to_base58()).collect::<Vec<_>>().join(",");
    let mut query = vec![
        ("replication-min".to_owned(), options.replication_factor_min.to_string()),
        ("replication-max".to_owned(), options.replication_factor_max.to_string()),
        ("name".to_owned(), options.name.clone()),
        ("mode".to_owned(), options.mode.as_str().to_owned()),
        ("shard-size".to_owned(), options.shard_size.to_string()),
        ("user-allocations".to_owned(), peers),
    ];
    if !options.expire_at.is_zero() {
        query.push(("expire-at".to_owned(), options.expire_at.to_string()));
    }
    if let Some(cid) = options.pin_update {
        query.push(("pin-update".to_owned(), cid.to_string()));
    }
    if !options.origins.is_empty() {
        let origins = options.origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        query.push(("origins".to_owned(), origins));
    }
    query.extend(options.metadata.iter().map(|(key, value)| (format!("meta-{key}"), value.clone())));
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

    #[test]
    fn a_path_stays_below_its_root() {
        assert_eq!(PinPath::parse(CID).unwrap().as_str(), format!("/ipfs/{CID}"));
        assert_eq!(PinPath::parse(&format!("{CID}/a b/")).unwrap().as_str(), format!("/ipfs/{CID}/a b"));
        assert_eq!(PinPath::parse("/ipns/example.org/x").unwrap().as_str(), "/ipns/example.org/x");
        for bad in
            ["", "/", "x", "/ipfs/", "/ipns/", "/ipfs/x", &format!("{CID}/../../../peers/x"), &format!("{CID}//a")]
        {
            assert!(PinPath::parse(bad).is_err(), "{bad}");
        }
    }
}
