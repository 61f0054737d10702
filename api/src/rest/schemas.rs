//! The objects of the REST API as JSON Schema, in the order of their fields. What is described here stands in
//! `cluster-types`; a test holds every golden answer against it.

use cluster_types::{PinType, TrackerStatus};
use serde_json::{Map, Value, json};

/// A list that may be `null` when it is empty: so clients of the original know it.
fn list(items: &Value) -> Value {
    json!({"type": ["array", "null"], "items": items})
}

fn map(values: &Value) -> Value {
    json!({"type": ["object", "null"], "additionalProperties": values})
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn or_null(schema: &str) -> Value {
    json!({"anyOf": [named(schema), {"type": "null"}]})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn truth() -> Value {
    json!({"type": "boolean"})
}

fn number() -> Value {
    json!({"type": "integer"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// An object whose fields are always there, but for the `optional` ones.
fn object<const N: usize>(about: &str, fields: [(&str, Value); N], optional: &[&str]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).filter(|name| !optional.contains(name)).collect();
    let properties: Map<String, Value> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({"type": "object", "description": about, "properties": properties, "required": required})
}

/// Every schema by its name.
pub(super) fn all() -> Map<String, Value> {
    let groups = [simple(), peers(), pins(), statuses(), monitoring(), others()];
    groups.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

type Group = Vec<(&'static str, Value)>;

fn simple() -> Group {
    let statuses: Vec<&str> =
        TrackerStatus::ALL.into_iter().chain([TrackerStatus::Undefined]).map(|s| s.as_str()).collect();
    vec![
        (
            "Cid",
            json!({"type": "string", "minLength": 1, "pattern": "^[0-9A-Za-z+/=_-]+$",
                "examples": ["QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"]}),
        ),
        (
            "PeerId",
            json!({"type": "string", "minLength": 1, "pattern": "^[0-9A-Za-z]+$",
                "examples": ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]}),
        ),
        ("Multiaddr", json!({"type": "string", "pattern": "^/", "examples": ["/ip4/127.0.0.1/tcp/9096"]})),
        ("Time", json!({"type": "string", "format": "date-time", "description": "0001-01-01T00:00:00Z means none."})),
        ("PinMode", json!({"type": "string", "enum": ["recursive", "direct"]})),
        ("PinType", json!({"type": "string", "enum": PinType::ALL.map(PinType::as_str)})),
        ("TrackerStatus", json!({"type": "string", "enum": statuses})),
        ("MetricName", text()),
        (
            "Description",
            json!({"type": "object", "description": "An OpenAPI document.", "required": ["openapi", "info", "paths"]}),
        ),
    ]
}

fn peers() -> Group {
    let id = object(
        "What a peer says of itself.",
        [
            ("id", named("PeerId")),
            ("addresses", list(&named("Multiaddr"))),
            ("cluster_peers", list(&named("PeerId"))),
            ("cluster_peers_addresses", list(&named("Multiaddr"))),
            ("version", text()),
            ("commit", text()),
            ("rpc_protocol_version", text()),
            ("error", text()),
            ("ipfs", named("IpfsId")),
            ("peername", text()),
            ("catching_up", named("CatchUp")),
        ],
        &["catching_up"],
    );
    let ipfs = object(
        "What an IPFS node says of itself; when it is down, only `error`.",
        [("id", text()), ("addresses", list(&named("Multiaddr"))), ("error", text())],
        &["id"],
    );
    let catching_up = object(
        "How far a peer that catches up with the others has come.",
        [
            ("index", count()),
            ("shards_done", count()),
            ("shards_total", count()),
            ("bytes", count()),
            ("lag_entries", count()),
            ("lag_seconds", count()),
            ("eta_seconds", count()),
            ("installing", truth()),
        ],
        &["eta_seconds"],
    );
    let graph = object(
        "Who is connected to whom.",
        [
            ("cluster_id", named("PeerId")),
            ("id_to_peername", map(&text())),
            ("ipfs_links", map(&list(&text()))),
            ("cluster_links", map(&list(&named("PeerId")))),
            ("cluster_trust_links", map(&truth())),
            ("cluster_to_ipfs", map(&text())),
        ],
        &[],
    );
    vec![
        ("Id", id),
        ("IpfsId", ipfs),
        ("CatchUp", catching_up),
        ("ConnectGraph", graph),
        ("AddPeer", object("The peer to add.", [("peer_id", named("PeerId"))], &[])),
        ("Token", object("A token.", [("token", text())], &[])),
        ("Version", object("The version of the program.", [("version", text())], &[])),
    ]
}

fn pins() -> Group {
    let pin = object(
        "One entry of the pinset.",
        [
            ("replication_factor_min", number()),
            ("replication_factor_max", number()),
            ("name", text()),
            ("mode", named("PinMode")),
            ("shard_size", count()),
            ("user_allocations", list(&named("PeerId"))),
            ("expire_at", named("Time")),
            ("metadata", map(&text())),
            ("pin_update", or_null("Cid")),
            ("origins", list(&named("Multiaddr"))),
            ("cid", named("Cid")),
            ("type", named("PinType")),
            ("allocations", list(&named("PeerId"))),
            ("max_depth", number()),
            ("reference", or_null("Cid")),
            ("timestamp", named("Time")),
            ("requests", list(&named("PinningRequest"))),
            ("only_requested", truth()),
        ],
        &["requests", "only_requested"],
    );
    let request = object(
        "A request of the pinning service that keeps a pin.",
        [
            ("id", text()),
            ("user", text()),
            ("name", text()),
            ("meta", map(&text())),
            ("origins", list(&named("Multiaddr"))),
            ("created", named("Time")),
        ],
        &[],
    );
    let added = object(
        "What an upload became, or how much of it was read.",
        [
            ("name", text()),
            ("cid", or_null("Cid")),
            ("bytes", count()),
            ("size", count()),
            ("allocations", list(&named("PeerId"))),
        ],
        &["bytes", "size", "allocations"],
    );
    vec![("Pin", pin), ("PinningRequest", request), ("AddedOutput", added)]
}

fn statuses() -> Group {
    let global = object(
        "How a pin is doing on all peers.",
        [
            ("cid", named("Cid")),
            ("name", text()),
            ("allocations", list(&named("PeerId"))),
            ("origins", list(&named("Multiaddr"))),
            ("created", named("Time")),
            ("metadata", map(&text())),
            ("peer_map", map(&named("PinInfoShort"))),
        ],
        &[],
    );
    let short = object(
        "How a pin is doing on one peer.",
        [
            ("peername", text()),
            ("ipfs_peer_id", text()),
            ("ipfs_peer_addresses", list(&named("Multiaddr"))),
            ("status", named("TrackerStatus")),
            ("timestamp", named("Time")),
            ("error", text()),
            ("attempt_count", count()),
            ("priority_pin", truth()),
        ],
        &["ipfs_peer_id", "ipfs_peer_addresses"],
    );
    let gc = object(
        "What garbage collection did on one peer.",
        [("peer", named("PeerId")), ("peername", text()), ("keys", list(&named("GcKey"))), ("error", text())],
        &["error"],
    );
    vec![
        ("GlobalPinInfo", global),
        ("PinInfoShort", short),
        ("GlobalRepoGc", object("What it did on all peers.", [("peer_map", map(&named("RepoGc")))], &[])),
        ("RepoGc", gc),
        (
            "GcKey",
            object(
                "A removed block, or one that could not be.",
                [("key", or_null("Cid")), ("error", text())],
                &["error"],
            ),
        ),
    ]
}

fn monitoring() -> Group {
    let fields = || {
        [
            ("name", text()),
            ("peer", named("PeerId")),
            ("value", text()),
            ("expire", number()),
            ("valid", truth()),
            ("weight", number()),
            ("partitionable", truth()),
            ("received_at", number()),
        ]
    };
    let metric = object("One value a peer tells the others; times in nanoseconds since 1970.", fields(), &[]);
    let [name, peer, value, expire, valid, weight, partitionable, received_at] = fields();
    let triggered = ("triggered_at", named("Time"));
    let alert = object(
        "A metric that expired and was not renewed.",
        [name, peer, value, expire, valid, weight, partitionable, received_at, triggered],
        &[],
    );
    let rate = json!({"type": "number"});
    let bandwidth = object(
        "Bytes, and bytes in a second.",
        [("total_in", count()), ("total_out", count()), ("rate_in", rate.clone()), ("rate_out", rate)],
        &[],
    );
    vec![("Metric", metric), ("Alert", alert), ("Bandwidth", bandwidth), ("Bandwidths", map(&named("Bandwidth")))]
}

fn others() -> Group {
    let role = json!({"type": "string", "enum": ["leader", "voter", "learner", "follower"]});
    let state = object(
        "Where a peer is in the shared log, and a digest of what it holds.",
        [
            ("applied_index", count()),
            ("committed_index", count()),
            ("term", count()),
            ("role", role),
            ("leader", or_null("PeerId")),
            ("digest", text()),
            ("pins", count()),
            ("eventual", count()),
        ],
        &[],
    );
    let event = object(
        "A wish that lost against another one.",
        [
            ("cid", named("Cid")),
            ("rule", text()),
            ("stale", truth()),
            ("time", named("Time")),
            ("index", count()),
            ("place", count()),
            ("winner", named("EventParty")),
            ("loser", named("EventParty")),
            ("message", text()),
        ],
        &[],
    );
    let party = object(
        "One side of a conflict.",
        [("author", text()), ("wish", text()), ("time", named("Time")), ("pin", or_null("Pin"))],
        &[],
    );
    let error = object(
        "Why not; `outcome` says whether the request took effect, where that is in question.",
        [
            ("code", number()),
            ("message", text()),
            ("outcome", json!({"type": "string", "enum": ["failed", "unknown"]})),
        ],
        &["outcome"],
    );
    vec![("StateReport", state), ("Event", event), ("EventParty", party), ("Error", error)]
}
