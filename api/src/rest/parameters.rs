//! What stands in the query or the path of requests: names, types and meaning, for whoever reads the description.

use serde_json::{Value, json};

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
}

/// What a parameter may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Bool,
    Int,
    /// A number from one to another, both included.
    Count(u64, u64),
    OneOf(&'static [&'static str]),
    /// A comma list of some of these words.
    ListOf(&'static [&'static str]),
    Cid,
    Cids,
    Peer,
    Peers,
    Addresses,
    Time,
    Duration,
    EventPlace,
    ContentPath,
    /// Any number of parameters whose names begin with `meta-`.
    Metadata,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
}

const fn query(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, about }
}

const fn path(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, kind, about }
}

/// The most items a listing with a `limit` may have.
pub(super) const MAX_LIMIT: u64 = 100_000;

pub(super) const CID: &[Parameter] = &[path("cid", Kind::Cid, "The CID, in any multibase.")];
pub(super) const PEER: &[Parameter] = &[path("peer", Kind::Peer, "The peer id, or its CID form.")];
pub(super) const METRIC: &[Parameter] = &[path("name", Kind::Text, "`ping`, `freespace`, `pinqueue`, `tag:<name>`…")];
pub(super) const CONTENT_PATH: &[Parameter] =
    &[path("path", Kind::ContentPath, "A CID (below `/ipns` a name), and what it leads to below that.")];
pub(super) const CONSISTENCY: &[Parameter] = &[query(
    "consistency",
    Kind::OneOf(&["local", "linearizable"]),
    "`linearizable` waits until everything that was acknowledged before is seen.",
)];
pub(super) const LOCAL: &[Parameter] = &[query("local", Kind::Bool, "Ask this peer only.")];
pub(super) const PIN_FILTER: &[Parameter] = &[query(
    "filter",
    Kind::ListOf(&["pin", "meta-pin", "clusterdag-pin", "shard-pin", "all"]),
    "Only entries of these kinds; none means all.",
)];
pub(super) const STATUS_FILTER: &[Parameter] = &[query(
    "filter",
    Kind::ListOf(&[
        "cluster_error",
        "pin_error",
        "unpin_error",
        "pinned",
        "pinning",
        "unpinning",
        "unpinned",
        "remote",
        "pin_queued",
        "unpin_queued",
        "sharded",
        "unexpectedly_unpinned",
        "error",
        "queued",
    ]),
    "Only pins, and of each only peers, in one of these statuses; none means all.",
)];
pub(super) const CIDS: &[Parameter] =
    &[query("cids", Kind::Cids, "Only these pins, in any order; not together with `limit` or `after`.")];
pub(super) const WINDOW: &[Parameter] = &[
    query("limit", Kind::Count(1, MAX_LIMIT), "At most so many."),
    query("after", Kind::Cid, "Only what comes after this CID: the last one of the page before."),
];
pub(super) const TOKEN: &[Parameter] = &[
    query("expire-in", Kind::Duration, "How long it lives; at least 1s, at most what the peer is configured for."),
    query(
        "scope",
        Kind::ListOf(&["read", "pin", "admin"]),
        "What it allows, of what the user may do; none: all of it.",
    ),
];
pub(super) const SEARCH: &[Parameter] = &[
    query("name-prefix", Kind::Text, "Only pins whose names begin so; by name, if `meta-<key>` is not there too."),
    query("meta", Kind::Metadata, "Only pins with this text under this key of their metadata: `meta-<key>=<text>`."),
];
pub(super) const EVENTS: &[Parameter] = &[
    query("limit", Kind::Count(1, 1_000), "At most so many; 100 if not said."),
    query("before", Kind::EventPlace, "Only what stands before this place, `<index>-<place>`."),
];
pub(super) const PIN_OPTIONS: &[Parameter] = &[
    query("name", Kind::Text, "A name for people."),
    query("mode", Kind::OneOf(&["recursive", "direct"]), "The whole DAG, or the root block only."),
    query("replication", Kind::Int, "Sets both factors below."),
    query("replication-min", Kind::Int, "Least number of copies; -1 everywhere, 0 the cluster's default."),
    query("replication-max", Kind::Int, "Wanted number of copies; -1 everywhere, 0 the cluster's default."),
    query("shard-size", Kind::Count(0, u64::MAX), "Largest shard in bytes, for sharded adds."),
    query("user-allocations", Kind::Peers, "Peers to prefer; what is no peer id is ignored."),
    query("expire-at", Kind::Time, "When the pin ends by itself."),
    query("expire-in", Kind::Duration, "The same, from now on; at least 1s. `expire-at` wins."),
    query("pin-update", Kind::Cid, "The pin this one replaces, whose blocks help to fetch it."),
    query("origins", Kind::Addresses, "Where the content can be fetched; each with `/p2p/<id>`."),
    query("meta", Kind::Metadata, "Free text by key: `meta-<key>=<text>`."),
];
pub(super) const ADD: &[Parameter] = &[
    query("format", Kind::OneOf(&["unixfs", "car"]), "Files, or a CAR archive with one root."),
    query("layout", Kind::OneOf(&["balanced", "trickle"]), "The shape of a file's DAG."),
    query(
        "profile",
        Kind::OneOf(&["unixfs-v0-2015", "unixfs-v1-2025"]),
        "Choices with a name, so that others get the same CIDs (IPIP-499); what is said besides counts more.",
    ),
    query("chunker", Kind::Text, "How files are cut: `size-<bytes>`, `buzhash`, `rabin-<min>-<average>-<max>`."),
    query("raw-leaves", Kind::Bool, "Leaves without a wrapping; by default so with CIDs of version 1."),
    query("cid-version", Kind::Count(0, 1), "Version of the CIDs."),
    query("hash", Kind::Text, "The hash function, like `sha2-256`."),
    query("max-file-links", Kind::Count(0, 4096), "Children of a node of a file; 0: 174, which is the default."),
    query(
        "max-directory-links",
        Kind::Count(0, 2_147_483_647),
        "Entries of a directory in one block; 0: its size decides.",
    ),
    query("max-hamt-fanout", Kind::Int, "Children of a node of a sharded directory, a power of two from 8 to 1024."),
    query("nocopy", Kind::Bool, "Leaves that could be referred to: implies `raw-leaves`. The blocks are copied."),
    query("wrap-with-directory", Kind::Bool, "Puts everything below one directory."),
    query("local", Kind::Bool, "The first copy is put on the asked peer."),
    query("no-pin", Kind::Bool, "Only puts the blocks."),
    query(
        "shard",
        Kind::Bool,
        "Spreads the content over peers, in shards of less than `shard-size` bytes (by default 100 MiB).",
    ),
    query("progress", Kind::Bool, "Tells how much was read, between the outputs."),
    query("stream-channels", Kind::Bool, "Outputs one by one (so by default), or one array at the end."),
    query("recursive", Kind::Bool, "Only checked: what is uploaded is what is added."),
    query("hidden", Kind::Bool, "Only checked: what is uploaded is what is added."),
];

impl Parameter {
    /// As OpenAPI describes it.
    pub(super) fn described(&self) -> Value {
        let mut described = json!({
            "name": self.name,
            "in": match self.place { Place::Path => "path", Place::Query => "query" },
            "required": self.place == Place::Path,
            "description": self.about,
            "schema": self.kind.schema(),
        });
        if matches!(self.kind, Kind::Cids | Kind::Peers | Kind::Addresses | Kind::ListOf(_)) {
            described["style"] = json!("form");
            described["explode"] = json!(false);
        }
        if matches!(self.kind, Kind::Metadata) {
            described["style"] = json!("form");
            described["explode"] = json!(true);
        }
        described
    }
}

impl Kind {
    fn schema(self) -> Value {
        let list = |items: Value| json!({"type": "array", "minItems": 1, "items": items});
        match self {
            Self::Text => json!({"type": "string", "minLength": 1}),
            Self::Bool => json!({"type": "boolean"}),
            Self::Int => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
            Self::Count(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::ListOf(words) => list(json!({"type": "string", "enum": words})),
            Self::Cid => json!({"$ref": "#/components/schemas/Cid"}),
            Self::Cids => list(json!({"$ref": "#/components/schemas/Cid"})),
            Self::Peer => json!({"$ref": "#/components/schemas/PeerId"}),
            Self::Peers => list(json!({"$ref": "#/components/schemas/PeerId"})),
            Self::Addresses => list(json!({"$ref": "#/components/schemas/Multiaddr"})),
            Self::Time => json!({"$ref": "#/components/schemas/Time"}),
            Self::Duration => json!({"type": "string", "pattern": "^([0-9]{1,4}(h|m|s))+$", "examples": ["48h"]}),
            Self::EventPlace => json!({"type": "string", "pattern": "^[0-9]{1,18}-[0-9]{1,9}$"}),
            Self::ContentPath => json!({"type": "string", "minLength": 1}),
            Self::Metadata => json!({
                "type": "object",
                "patternProperties": {"^meta-.+$": {"type": "string"}},
                "additionalProperties": false,
            }),
        }
    }
}
