//! `null` in the place of a list or map: the original writes it for empty ones, so readers take both.

use std::collections::BTreeMap;
use std::hash::Hash;

use serde::{Deserialize, Deserializer};

/// Reads a value, or its default from `null`.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a map of lists in which the map, and each list, may be `null`.
pub(crate) fn nulls_are_empty<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, Vec<V>>, D::Error>
where
    D: Deserializer<'de>,
    K: Ord + Hash + Deserialize<'de>,
    V: Deserialize<'de>,
{
    let map: BTreeMap<K, Option<Vec<V>>> = null_is_empty(deserializer)?;
    Ok(map.into_iter().map(|(key, list)| (key, list.unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use crate::{ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id, IpfsId, Pin, PinInfo, PinInfoShort, RepoGc};

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const TIME: &str = "2026-05-11T08:00:00Z";

    /// Every list and map of `value`, one after the other and all together, becomes `null`; none may keep `T` from being
    /// read, and all must read as empty.
    fn check<T: DeserializeOwned + Serialize>(value: &Value) {
        let fields = value.as_object().unwrap();
        let empties: Vec<&String> =
            fields.iter().filter(|(_, v)| v.is_array() || v.is_object()).map(|(k, _)| k).collect();
        let mut all = value.clone();
        for key in empties {
            let mut one = value.clone();
            one[key] = Value::Null;
            all[key] = Value::Null;
            let read: T = serde_json::from_value(one.clone()).unwrap_or_else(|error| panic!("{key} of {one}: {error}"));
            let written = serde_json::to_value(read).unwrap();
            let size = match written.get(key) {
                Some(Value::Array(list)) => list.len(),
                Some(Value::Object(map)) => usize::from(key != "ipfs") * map.len(),
                Some(_) | None => 0,
            };
            assert_eq!(size, 0, "{key} of {written}");
        }
        serde_json::from_value::<T>(all).unwrap();
    }

    #[test]
    fn every_list_and_map_may_be_null() {
        let short = json!({"peername": "p", "ipfs_peer_id": "", "ipfs_peer_addresses": ["/ip4/1.2.3.4/tcp/1"], "status":
            "pinned", "timestamp": TIME, "error": "", "attempt_count": 0, "priority_pin": false});
        let info = json!({"cid": CID, "name": "", "allocations": [PEER], "origins": ["/ip4/1.2.3.4/tcp/1"],
            "created": TIME, "metadata": {"a": "b"}, "peer_map": {PEER: short}});
        let ipfs = json!({"id": "x", "addresses": ["/ip4/1.2.3.4/tcp/1"], "error": ""});
        let gc = json!({"peer": PEER, "peername": "p", "keys": [{"key": CID}]});
        check::<PinInfoShort>(&short);
        check::<GlobalPinInfo>(&info);
        let mut local = info.clone();
        local.as_object_mut().unwrap().extend(short.as_object().unwrap().clone());
        local["peer"] = json!(PEER);
        check::<PinInfo>(&local);
        check::<IpfsId>(&ipfs);
        check::<Id>(&json!({"id": PEER, "addresses": ["/ip4/1.2.3.4/tcp/1"], "cluster_peers": [PEER],
            "cluster_peers_addresses": ["/ip4/1.2.3.4/tcp/1"], "ipfs": ipfs}));
        check::<ConnectGraph>(&json!({"cluster_id": PEER, "id_to_peername": {"a": "b"}, "ipfs_links": {"a": ["b"]},
            "cluster_links": {"a": ["b"]}, "cluster_trust_links": {"a": true}, "cluster_to_ipfs": {"a": "b"}}));
        check::<RepoGc>(&gc);
        check::<GlobalRepoGc>(&json!({"peer_map": {PEER: gc}}));
        check::<Pin>(
            &json!({"cid": CID, "allocations": [PEER], "metadata": {"a": "b"}, "origins": ["/ip4/1.2.3.4/tcp/1"],
            "user_allocations": [PEER]}),
        );
    }

    #[test]
    fn lists_inside_of_a_graph_may_be_null() {
        let graph = json!({"cluster_id": PEER, "ipfs_links": {"a": null}, "cluster_links": {"b": null}});
        let graph: ConnectGraph = serde_json::from_value(graph).unwrap();
        assert!(graph.ipfs_links["a"].is_empty() && graph.cluster_links["b"].is_empty());
        assert!(graph.cluster_trust_links.is_empty());
    }
}
