//! The JSON of the specification.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::cluster::WantedPin;
use cluster_types::{Cid, GlobalPinInfo, Multiaddr, Pin, PinningRequest, RequestNumber, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use super::status::{self, Status};
use crate::error::Failure;

/// The most letters of a name.
pub(super) const MAX_NAME: usize = 255;
/// The most origins and delegates.
const MAX_ADDRESSES: usize = 20;
/// The most keys of metadata.
const MAX_META: usize = 1000;
/// The longest key and text of metadata, in bytes; the specification leaves that to the service.
const MAX_META_BYTES: usize = 4096;

/// An error.
#[derive(Serialize)]
pub(super) struct Failed<'a> {
    error: Reason<'a>,
}

#[derive(Serialize)]
struct Reason<'a> {
    reason: String,
    details: &'a str,
}

impl<'a> From<&'a Failure> for Failed<'a> {
    fn from(failure: &'a Failure) -> Self {
        // The words of the specification: NOT_FOUND, BAD_REQUEST, …
        let reason = failure.status.canonical_reason().unwrap_or("ERROR").to_uppercase().replace([' ', '-', '\''], "_");
        Self { error: Reason { reason, details: &failure.message } }
    }
}

/// Some requests.
#[derive(Serialize)]
pub(super) struct PinResults {
    pub(super) count: u64,
    pub(super) results: Vec<PinStatus>,
}

/// One request and how it is doing.
#[derive(Serialize)]
pub(super) struct PinStatus {
    requestid: String,
    status: Status,
    created: Timestamp,
    pin: PinObject,
    delegates: Vec<String>,
    info: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct PinObject {
    cid: Cid,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    origins: Vec<Multiaddr>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
}

impl PinStatus {
    /// What is said of `request` for `pin`, which is doing as `info` says.
    pub(super) fn new(requestid: String, request: &PinningRequest, pin: &Pin, info: Option<&GlobalPinInfo>) -> Self {
        let mut details = BTreeMap::from([("source", "IPFS cluster API".to_owned())]);
        if let Some(error) = info.and_then(status::trouble) {
            details.insert("status_details", error);
        }
        Self {
            requestid,
            status: info.map_or(Status::Queued, Status::of),
            created: request.created,
            pin: PinObject {
                cid: pin.cid,
                name: request.name.clone(),
                origins: request.origins.clone(),
                meta: request.meta.clone(),
            },
            delegates: info.map(|info| delegates(pin, info)).unwrap_or_default(),
            info: details,
        }
    }
}

impl PinStatus {
    /// The same right after it was asked for: what failed before is tried again.
    pub(super) fn just_made(mut self) -> Self {
        if self.status == Status::Failed {
            self.status = Status::Queued;
            self.info.remove("status_details");
        }
        self
    }
}

/// Where the nodes that hold the pin can be reached: one address of each first, so that none is left out.
fn delegates(pin: &Pin, info: &GlobalPinInfo) -> Vec<String> {
    let allocated: BTreeSet<String> = pin.allocations.iter().map(ToString::to_string).collect();
    let holders = info.peer_map.iter().filter(|(peer, _)| pin.is_everywhere() || allocated.contains(peer.as_str()));
    let addresses: Vec<_> = holders.map(|(_, info)| info.ipfs_peer_addresses.as_slice()).collect();
    let most = addresses.iter().map(|addresses| addresses.len()).max().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let in_turn = (0..most).flat_map(|place| addresses.iter().filter_map(move |addresses| addresses.get(place)));
    in_turn.map(ToString::to_string).filter(|address| seen.insert(address.clone())).take(MAX_ADDRESSES).collect()
}

/// What a body asks for.
pub(super) fn wanted(body: &[u8], user: &str) -> Result<WantedPin, Failure> {
    let object: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not a JSON object of a pin: {error}")))?;
    let text = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Failure::bad_request(format!("{name} is not a text"))),
    };
    let cid = text("cid")?.ok_or_else(|| Failure::bad_request("the pin has no cid"))?;
    let cid: Cid = cid.parse().map_err(|error| Failure::bad_request(format!("cid is no CID: {error}")))?;
    let name = text("name")?.unwrap_or_default();
    if name.chars().count() > MAX_NAME {
        return Err(Failure::bad_request("pin name is over 255 chars"));
    }
    Ok(WantedPin {
        id: RequestNumber(rand::random()),
        cid,
        user: user.to_owned(),
        name: name.to_owned(),
        meta: texts(object.get("meta"))?,
        origins: origins(object.get("origins"))?,
    })
}

/// Texts by key.
pub(super) fn texts(value: Option<&Value>) -> Result<BTreeMap<String, String>, Failure> {
    let refuse = |why: String| Err(Failure::bad_request(why));
    let object = match value {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return refuse("meta is not an object".to_owned()),
    };
    if object.len() > MAX_META {
        return refuse(format!("meta has {} keys, at most {MAX_META} are kept", object.len()));
    }
    let mut texts = BTreeMap::new();
    for (key, value) in object {
        let Value::String(text) = value else { return refuse(format!("meta: the value of {key:?} is not a text")) };
        if key.len().max(text.len()) > MAX_META_BYTES {
            return refuse(format!("meta: a key or a value has more than {MAX_META_BYTES} bytes"));
        }
        texts.insert(key.clone(), text.clone());
    }
    Ok(texts)
}

fn origins(value: Option<&Value>) -> Result<Vec<Multiaddr>, Failure> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Failure::bad_request("origins is not a list")),
    };
    if list.len() > MAX_ADDRESSES {
        let message = format!("there are {} origins, at most {MAX_ADDRESSES} are kept", list.len());
        return Err(Failure::bad_request(message));
    }
    let origin = |value: &Value| {
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| Failure::bad_request(format!("origins: {value} is not a multiaddress")))
    };
    list.iter().map(origin).collect()
}
