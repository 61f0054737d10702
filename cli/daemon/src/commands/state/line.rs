//! One pin in an export, written as the original writes it: what is empty is `null` or `[]` just as there.

use std::collections::BTreeMap;

use cluster_types::{Cid, Multiaddr, PeerId, Pin, PinDepth, PinMode, PinType, Timestamp};
use serde::Serialize;

/// A line of an export. Keys stand in this order.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    replication_factor_min: i32,
    replication_factor_max: i32,
    name: &'a str,
    mode: PinMode,
    shard_size: u64,
    user_allocations: Option<()>,
    expire_at: Timestamp,
    metadata: Option<&'a BTreeMap<String, String>>,
    pin_update: Option<Cid>,
    origins: &'a [Multiaddr],
    cid: Cid,
    #[serde(rename = "type")]
    kind: PinType,
    allocations: &'a [PeerId],
    max_depth: PinDepth,
    reference: Option<Cid>,
    timestamp: Timestamp,
}

impl<'a> Line<'a> {
    /// The line of a pin.
    pub(super) fn of(pin: &'a Pin) -> Self {
        let options = &pin.options;
        Self {
            replication_factor_min: options.replication_factor_min,
            replication_factor_max: options.replication_factor_max,
            name: &options.name,
            mode: options.mode,
            shard_size: options.shard_size,
            user_allocations: None,
            expire_at: options.expire_at,
            metadata: Some(&options.metadata).filter(|metadata| !metadata.is_empty()),
            pin_update: options.pin_update,
            origins: &options.origins,
            cid: pin.cid,
            kind: pin.kind,
            allocations: &pin.allocations,
            max_depth: pin.max_depth,
            reference: pin.reference,
            timestamp: pin.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_original_is_written_as_it_was_read() {
        let line = r#"{"replication_factor_min":-1,"replication_factor_max":-1,"name":"","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-05-11T08:00:00Z"}"#;
        let full = line
            .replace("\"metadata\":null", r#""metadata":{"a":"b"}"#)
            .replace("\"origins\":[]", r#""origins":["/ip4/1.2.3.4/tcp/4001"]"#)
            .replace("\"allocations\":[]", r#""allocations":["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]"#);
        for line in [line, &full] {
            let pin: Pin = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&Line::of(&pin)).unwrap(), line);
        }
    }
}
