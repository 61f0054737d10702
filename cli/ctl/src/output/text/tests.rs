//! Every format scripts read, as golden text.

use cluster_types::{GcKey, IpfsId, PinInfoShort, PinOptions, RepoGc, TrackerStatus};

use super::*;
use crate::args::Encoding;
use crate::output::render;

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OTHER: &str = "QmXZXGXXXNo1Xmgq2BxeSveaWfcytVD1Y9z5L2iSrHqGdV";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn shown<T: Show>(item: &T) -> String {
    render(item, Encoding::Text, at("2026-05-11T08:00:00Z")).unwrap()
}

fn id() -> Id {
    let mut id = Id::unreachable(PEER.parse().unwrap(), String::new());
    id.peername = "peer0".to_owned();
    id.cluster_peers = vec![PEER.parse().unwrap(), OTHER.parse().unwrap()];
    id.addresses = vec!["/ip4/2.2.2.2/tcp/9096".parse().unwrap(), "/ip4/1.1.1.1/tcp/9096".parse().unwrap()];
    id.ipfs = IpfsId {
        id: OTHER.to_owned(),
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        error: String::new(),
    };
    id
}

#[test]
fn an_id() {
    let expected = format!(
        "{PEER} | peer0 | Sees 1 other peers\n  > Addresses:\n    - /ip4/1.1.1.1/tcp/9096\n    - /ip4/2.2.2.2/tcp/9096\n  \
         > IPFS: {OTHER}\n    - /ip4/127.0.0.1/tcp/4001\n"
    );
    assert_eq!(shown(&id()), expected);
}

#[test]
fn an_id_whose_ipfs_node_is_down() {
    let mut id = id();
    id.addresses.clear();
    id.ipfs = IpfsId { error: "connection refused".to_owned(), ..IpfsId::default() };
    let expected = format!("{PEER} | peer0 | Sees 1 other peers\n  > Addresses:\n  > IPFS ERROR: connection refused\n");
    assert_eq!(shown(&id), expected);
}

#[test]
fn an_id_of_a_peer_that_catches_up() {
    let mut id = id();
    id.addresses.clear();
    id.ipfs = IpfsId { id: OTHER.to_owned(), ..IpfsId::default() };
    id.catching_up = Some(CatchUp {
        index: 900,
        shards_done: 12,
        shards_total: 4096,
        bytes: 3_400_000,
        lag_entries: 120,
        lag_seconds: 5,
        eta_seconds: Some(20),
        installing: false,
    });
    let expected = format!(
        "{PEER} | peer0 | Sees 1 other peers\n  > Addresses:\n  > IPFS: {OTHER}\n  \
         > Catching up: 12/4096 shards, 3.4 MB, 120 entries (5s) behind, about 20s left\n"
    );
    assert_eq!(shown(&id), expected);
}

#[test]
fn an_id_of_a_peer_that_does_not_answer() {
    let id = Id::unreachable(PEER.parse().unwrap(), "dial backoff".to_owned());
    assert_eq!(shown(&id), format!("{PEER} | ERROR: dial backoff\n"));
}

fn info() -> GlobalPinInfo {
    let json = format!(r#"{{"cid":"{CID}","name":"myname"}}"#);
    let mut info: GlobalPinInfo = serde_json::from_str(&json).unwrap();
    for (peer, name, status) in [("b", "peer1", TrackerStatus::Remote), ("a", "peer0", TrackerStatus::Pinned)] {
        let timestamp = at("2026-05-11T08:00:00Z");
        let short = PinInfoShort { peername: name.to_owned(), status, timestamp, ..PinInfoShort::default() };
        info.peer_map.insert(peer.to_owned(), short);
    }
    info
}

#[test]
fn a_status() {
    let expected = format!(
        "{CID} | myname:\n    > peer0                : PINNED | 2026-05-11T08:00:00Z | Attempts: 0 | Priority: false\n    \
         > peer1                : REMOTE | 2026-05-11T08:00:00Z | Attempts: 0 | Priority: false\n"
    );
    assert_eq!(shown(&info()), expected);
}

#[test]
fn a_status_of_a_nameless_pin_with_an_error() {
    let mut info = info();
    info.name.clear();
    info.peer_map.remove("b");
    let short = info.peer_map.get_mut("a").unwrap();
    *short = PinInfoShort {
        peername: String::new(),
        status: TrackerStatus::PinError,
        error: "no\nroom\u{1b}[31m".to_owned(),
        attempt_count: 3,
        priority_pin: true,
        ..short.clone()
    };
    let expected = format!(
        "{CID}:\n    > a                    : PIN_ERROR: no room [31m | 2026-05-11T08:00:00Z | Attempts: 3 | Priority: true\n"
    );
    assert_eq!(shown(&info), expected);
}

fn pin() -> Pin {
    let mut pin = Pin::new(CID.parse().unwrap(), PinOptions { name: "n".to_owned(), ..PinOptions::default() });
    pin.options.replication_factor_min = -1;
    pin.options.replication_factor_max = -1;
    pin
}

#[test]
fn a_pin_everywhere() {
    let expected = format!(
        "{CID} | n | PIN | Repl. Factor: -1 | Allocations: [everywhere] | Recursive | Metadata: no | Exp: ∞ | Added: unknown\n"
    );
    assert_eq!(shown(&pin()), expected);
}

#[test]
fn a_pin_on_some_peers() {
    let mut pin = pin();
    pin.options.replication_factor_min = 1;
    pin.options.replication_factor_max = 2;
    pin.allocations = vec![OTHER.parse().unwrap(), PEER.parse().unwrap()];
    pin.max_depth = PinDepth::DIRECT;
    pin.options.metadata.insert("a".to_owned(), "b".to_owned());
    pin.options.expire_at = at("2030-01-02T03:04:05.9Z");
    pin.timestamp = at("2026-05-11T08:00:00+02:00");
    let expected = format!(
        "{CID} | n | PIN-DIRECT | Repl. Factor: 1--2 | Allocations: [{PEER} {OTHER}] | Direct | Metadata: yes | \
         Exp: 2030-01-02 03:04:05 | Added: 2026-05-11 06:00:00\n"
    );
    assert_eq!(shown(&pin), expected);
}

#[test]
fn the_kinds_and_depths_of_pins() {
    use cluster_types::PinType;
    let mut pin = pin();
    for (kind, text) in
        [(PinType::Meta, "META-PIN"), (PinType::ClusterDag, "CLUSTERDAG-PIN"), (PinType::Shard, "SHARD-PIN")]
    {
        pin.kind = kind;
        pin.max_depth = PinDepth(3);
        let line = shown(&pin);
        assert!(line.contains(&format!(" | {text} | ")) && line.contains(" | Recursive-3 | "), "{line}");
    }
}

#[test]
fn what_was_added() {
    let output = AddedOutput { name: "a/b".to_owned(), cid: Some(CID.parse().unwrap()), ..AddedOutput::default() };
    assert_eq!(shown(&Added { output: &output, quiet: false }), format!("added {CID} a/b\n"));
    assert_eq!(shown(&Added { output: &output, quiet: true }), format!("{CID}\n"));
    let list = AddedList(vec![Added { output: &output, quiet: true }]);
    let json = format!("[\n    {{\n        \"name\": \"a/b\",\n        \"cid\": \"{CID}\"\n    }}\n]\n");
    assert_eq!(render(&list, Encoding::Json, Timestamp::ZERO).unwrap(), json);
}

#[test]
fn a_version_and_names_of_metrics() {
    let version = PeerVersion { version: "1.2.3".to_owned() };
    assert_eq!(shown(&version), "1.2.3\n");
    assert_eq!(render(&version, Encoding::Json, Timestamp::ZERO).unwrap(), "{\n    \"version\": \"1.2.3\"\n}\n");
    let names = MetricNames(vec!["ping".to_owned(), "freespace".to_owned()]);
    assert_eq!(shown(&names), "ping\nfreespace\n");
    assert_eq!(render(&names, Encoding::Json, Timestamp::ZERO).unwrap(), "[\n    \"ping\",\n    \"freespace\"\n]\n");
}

fn metric(name: &str, value: &str, weight: i64) -> Metric {
    Metric {
        name: name.to_owned(),
        peer: PEER.parse().unwrap(),
        value: value.to_owned(),
        expire: at("2026-05-11T08:00:25Z").unix_nanos(),
        valid: true,
        weight,
        partitionable: false,
        received_at: 0,
    }
}

#[test]
fn metrics() {
    let metrics =
        vec![metric("freespace", "83000000000", 83_000_000_000), metric("freespace", "0", 0), metric("ping", "{}", 5)];
    let expected = format!(
        "{PEER} | freespace: 83 GB | Expires in: 25 seconds from now\n{PEER} | freespace: 0 | Expires in: 25 seconds from now\n\
         {PEER} | ping: {{}} | Expires in: 25 seconds from now\n"
    );
    assert_eq!(shown(&metrics), expected);
}

#[test]
fn alerts() {
    let mut metric = metric("ping", "", 0);
    metric.expire = at("2026-05-11T07:58:00Z").unix_nanos();
    let alerts = vec![Alert { metric, triggered_at: at("2026-05-11T07:59:00Z") }];
    assert_eq!(shown(&alerts), format!("{PEER}: ping. Expired at: 2 minutes ago. Triggered at: 1 minute ago\n"));
}

#[test]
fn a_garbage_collection() {
    let done = |peername: &str, keys: Vec<GcKey>, error: &str| RepoGc {
        peer: PEER.parse().unwrap(),
        peername: peername.to_owned(),
        keys,
        error: error.to_owned(),
    };
    let keys = vec![
        GcKey { key: Some(CID.parse().unwrap()), error: String::new() },
        GcKey { key: None, error: "busy".to_owned() },
    ];
    let all = GlobalRepoGc {
        peer_map: [("b".to_owned(), done("", Vec::new(), "away")), ("a".to_owned(), done("peer0", keys, ""))].into(),
    };
    let expected = format!(
        "peer0          \n  > CIDs:\n    - {CID}\n    - ERROR: busy\nb               | ERROR: away\n  > CIDs:\n"
    );
    assert_eq!(shown(&all), expected);
}

#[test]
fn an_error_of_the_api() {
    let failure = ApiFailure { code: 404, message: "pin is not part of the pinset".to_owned() };
    assert_eq!(shown(&failure), "An error occurred:\n  Code: 404\n  Message: pin is not part of the pinset\n");
    let json = "{\n    \"code\": 404,\n    \"message\": \"pin is not part of the pinset\"\n}\n";
    assert_eq!(render(&failure, Encoding::Json, Timestamp::ZERO).unwrap(), json);
}
