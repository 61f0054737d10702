//! A pin: one entry of the pinset, and what a user may ask of it.

use std::collections::BTreeMap;
use std::fmt;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::null::null_is_empty;
use crate::peer::PeerId;
use crate::pinning::{PinningRequest, RequestNumber};
use crate::replication::{ReplicationError, ReplicationFactor};
use crate::time::Timestamp;

/// How much of a DAG a pin keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinMode {
    /// The whole DAG.
    #[default]
    Recursive,
    /// The root block only.
    Direct,
}

impl PinMode {
    /// Reads a mode; what is not `direct` is recursive, as the original takes it.
    pub fn from_lossy(text: &str) -> Self {
        if text == "direct" { Self::Direct } else { Self::Recursive }
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Direct => "direct",
        }
    }

    /// The depth that goes with the mode.
    pub fn depth(self) -> PinDepth {
        match self {
            Self::Recursive => PinDepth::RECURSIVE,
            Self::Direct => PinDepth::DIRECT,
        }
    }
}

/// How deep a pin goes: -1 the whole DAG, 0 the root block, n that many levels below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PinDepth(pub i32);

impl PinDepth {
    /// The whole DAG.
    pub const RECURSIVE: Self = Self(-1);
    /// The root block only.
    pub const DIRECT: Self = Self(0);

    /// The mode that goes with the depth.
    pub fn mode(self) -> PinMode {
        if self == Self::DIRECT { PinMode::Direct } else { PinMode::Recursive }
    }
}

impl Default for PinDepth {
    fn default() -> Self {
        Self::RECURSIVE
    }
}

/// What kind of entry a pin is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PinType {
    /// Content a user asked for.
    #[default]
    #[serde(rename = "pin")]
    Data,
    /// The root of content that was added in shards.
    #[serde(rename = "meta-pin")]
    Meta,
    /// The block that lists the shards of a meta pin.
    #[serde(rename = "clusterdag-pin")]
    ClusterDag,
    /// One shard.
    #[serde(rename = "shard-pin")]
    Shard,
}

impl PinType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Data, Self::Meta, Self::ClusterDag, Self::Shard];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "pin",
            Self::Meta => "meta-pin",
            Self::ClusterDag => "clusterdag-pin",
            Self::Shard => "shard-pin",
        }
    }
}

impl fmt::Display for PinType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which kinds of entry a listing wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinTypeFilter(u8);

impl PinTypeFilter {
    /// Every kind.
    pub const ALL: Self = Self(0b1111);

    /// Reads a comma list of kinds or `all`; empty means all, unknown names are ignored, and nothing but unknown
    /// names gives `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::ALL);
        }
        let mut bits = 0;
        for name in text.split(',').map(str::trim) {
            if name == "all" {
                bits |= Self::ALL.0;
            }
            for (place, kind) in PinType::ALL.into_iter().enumerate() {
                if kind.as_str() == name {
                    bits |= 1 << place;
                }
            }
        }
        (bits != 0).then_some(Self(bits))
    }

    /// Whether `kind` is wanted.
    pub fn matches(self, kind: PinType) -> bool {
        PinType::ALL.iter().position(|known| *known == kind).is_some_and(|place| self.0 & (1 << place) != 0)
    }
}

/// What a user may ask of a pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinOptions {
    /// Least number of copies; -1 everywhere, 0 the cluster's default.
    #[serde(default)]
    pub replication_factor_min: i32,
    /// Wanted number of copies; -1 everywhere, 0 the cluster's default.
    #[serde(default)]
    pub replication_factor_max: i32,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// How much of the DAG to keep.
    #[serde(default)]
    pub mode: PinMode,
    /// Largest shard in bytes, for sharded adds.
    #[serde(default)]
    pub shard_size: u64,
    /// Peers to prefer when allocating; not kept. `null` when read back.
    #[serde(default, deserialize_with = "null_is_empty", serialize_with = "empty_is_null")]
    pub user_allocations: Vec<PeerId>,
    /// When the pin ends by itself; zero means never.
    #[serde(default)]
    pub expire_at: Timestamp,
    /// Free text by key.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The pin this one replaces, whose blocks help to fetch it.
    #[serde(default)]
    pub pin_update: Option<Cid>,
    /// Where the content can be fetched.
    #[serde(default, deserialize_with = "null_is_empty", serialize_with = "empty_is_null")]
    pub origins: Vec<Multiaddr>,
}

impl PinOptions {
    /// The replication factors, with `default` in the place of each that is 0.
    pub fn replication(&self, default: ReplicationFactor) -> Result<ReplicationFactor, ReplicationError> {
        let (min, max) = default.as_pair();
        let or = |value: i32, default: i32| if value == 0 { default } else { value };
        ReplicationFactor::checked(or(self.replication_factor_min, min), or(self.replication_factor_max, max))
    }
}

/// One entry of the pinset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What the user asked for.
    #[serde(flatten)]
    pub options: PinOptions,
    /// The root of the content.
    pub cid: Cid,
    /// What kind of entry this is.
    #[serde(rename = "type", default)]
    pub kind: PinType,
    /// The peers that hold it; empty means every peer.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub allocations: Vec<PeerId>,
    /// How deep it goes.
    #[serde(default)]
    pub max_depth: PinDepth,
    /// Meta pin: its cluster DAG; shard: the shard before it.
    #[serde(default)]
    pub reference: Option<Cid>,
    /// When it was submitted.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// The requests of the pinning service that keep it, by number.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<PinningRequest>,
    /// Whether nobody but those requests wants it: then it goes with the last of them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only_requested: bool,
}

impl Pin {
    /// A plain pin of `cid` with `options`, not yet allocated.
    pub fn new(cid: Cid, options: PinOptions) -> Self {
        let max_depth = options.mode.depth();
        Self {
            options,
            cid,
            kind: PinType::Data,
            allocations: Vec::new(),
            max_depth,
            reference: None,
            timestamp: Timestamp::ZERO,
            requests: Vec::new(),
            only_requested: false,
        }
    }

    /// The request of the pinning service with this number.
    pub fn request(&self, id: &RequestNumber) -> Option<&PinningRequest> {
        self.requests.iter().find(|request| request.id == *id)
    }

    /// Takes in requests: each once, by number.
    pub fn unite_requests(&mut self, others: impl IntoIterator<Item = PinningRequest>) {
        self.requests.extend(others);
        self.requests.sort();
        self.requests.dedup_by_key(|request| request.id);
    }

    /// Has a pin that only requests keep go by the name and metadata of the newest.
    pub fn show_newest_request(&mut self) {
        if let Some(newest) = self.requests.iter().min_by_key(|request| request.place()).filter(|_| self.only_requested)
        {
            self.options.name.clone_from(&newest.name);
            self.options.metadata.clone_from(&newest.meta);
        }
    }

    /// Whether every peer holds it.
    pub fn is_everywhere(&self) -> bool {
        self.options.replication_factor_min < 0
    }

    /// Whether `peer` should hold it. A meta pin is held by nobody: its shards are.
    pub fn is_allocated_to(&self, peer: &PeerId) -> bool {
        self.kind != PinType::Meta && (self.is_everywhere() || self.allocations.contains(peer))
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn empty_is_null<S: serde::Serializer, T: Serialize>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() { serializer.serialize_none() } else { serializer.collect_seq(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_the_json_of_the_original() {
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let options = PinOptions {
            replication_factor_min: -1,
            replication_factor_max: -1,
            name: "x".to_owned(),
            ..PinOptions::default()
        };
        let mut pin = Pin::new(cid, options);
        pin.timestamp = "2026-05-11T08:17:41Z".parse().unwrap();
        let json = r#"{"replication_factor_min":-1,"replication_factor_max":-1,"name":"x","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":{},"pin_update":null,"origins":null,"cid":"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-05-11T08:17:41Z"}"#;
        assert_eq!(serde_json::to_string(&pin).unwrap(), json);
        assert_eq!(serde_json::from_str::<Pin>(json).unwrap(), pin);
        let nulls = json.replace("[]", "null").replace("{}", "null");
        assert_eq!(serde_json::from_str::<Pin>(&nulls).unwrap(), pin);
    }

    #[test]
    fn requests_are_united_by_number_and_the_newest_gives_the_name() {
        let request = |id, millis, name: &str| PinningRequest {
            id: RequestNumber([id; 16]),
            user: "ann".to_owned(),
            name: name.to_owned(),
            meta: [("of".to_owned(), name.to_owned())].into(),
            origins: Vec::new(),
            created: Timestamp::from_unix_millis(millis),
        };
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let mut pin = Pin::new(cid, PinOptions { name: "own".to_owned(), ..PinOptions::default() });
        let (one, two) = (request(2, 5, "one"), request(1, 9, "two"));
        pin.unite_requests([one.clone(), two.clone()]);
        pin.unite_requests([one.clone()]);
        assert_eq!(pin.requests, [two.clone(), one.clone()]);
        assert_eq!(pin.request(&one.id), Some(&one));
        pin.show_newest_request();
        assert_eq!(pin.options.name, "own", "somebody wants it by other means");
        pin.only_requested = true;
        pin.show_newest_request();
        assert_eq!((pin.options.name.as_str(), &pin.options.metadata), ("two", &two.meta));
        let json = serde_json::to_string(&pin).unwrap();
        assert!(json.contains(r#""only_requested":true"#), "{json}");
        assert_eq!(serde_json::from_str::<Pin>(&json).unwrap(), pin);
    }

    #[test]
    fn a_filter_of_unknown_kinds_only_is_refused() {
        assert_eq!(PinTypeFilter::parse(""), Some(PinTypeFilter::ALL));
        assert_eq!(PinTypeFilter::parse("all"), Some(PinTypeFilter::ALL));
        assert_eq!(PinTypeFilter::parse("nonsense"), None);
        let some = PinTypeFilter::parse("nonsense, shard-pin").unwrap();
        assert!(some.matches(PinType::Shard) && !some.matches(PinType::Data));
    }
}
