//! Answers in which every field holds something.

use std::collections::BTreeMap;

use cluster_types::{
    AddedOutput, Alert, CatchUp, ConnectGraph, GcKey, GlobalPinInfo, GlobalRepoGc, Id, IpfsId, Metric, Multiaddr,
    PeerId, Pin, PinDepth, PinInfoShort, PinMode, PinOptions, PinType, PinningRequest, RepoGc, RequestNumber,
    Timestamp, TrackerStatus, parse_peer_id,
};

use crate::fake::{CID, OTHER, PEER, cid};

/// A second peer, that does not answer.
const SILENT: &str = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
/// A third one.
const THIRD: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

fn time() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn peer(text: &str) -> PeerId {
    parse_peer_id(text).unwrap()
}

fn addresses() -> Vec<Multiaddr> {
    let texts = [format!("/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"), format!("/dns4/one.example/tcp/4001/p2p/{PEER}")];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn peers() -> Vec<Id> {
    let full = Id {
        id: peer(PEER),
        addresses: addresses(),
        cluster_peers: vec![peer(PEER), peer(SILENT)],
        cluster_peers_addresses: vec![format!("/dns4/two.example/tcp/9096/p2p/{SILENT}").parse().unwrap()],
        version: "9.9.9".to_owned(),
        commit: String::new(),
        rpc_protocol_version: Id::RPC_PROTOCOL.to_owned(),
        error: String::new(),
        ipfs: IpfsId { id: THIRD.to_owned(), addresses: addresses(), error: String::new() },
        peername: "one".to_owned(),
        catching_up: Some(CatchUp {
            index: 1_000,
            shards_done: 7,
            shards_total: 4_096,
            bytes: 1_048_576,
            lag_entries: 900,
            lag_seconds: 60,
            eta_seconds: Some(12),
            installing: true,
        }),
    };
    vec![full, Id::unreachable(peer(SILENT), "cannot reach the peer".to_owned())]
}

pub(crate) fn options() -> PinOptions {
    PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 2,
        name: "a & \"b\"".to_owned(),
        mode: PinMode::Direct,
        shard_size: 104_857_600,
        user_allocations: vec![peer(PEER)],
        expire_at: Timestamp::from_unix_seconds(1_900_000_000),
        metadata: BTreeMap::from([("<kind>".to_owned(), "photo".to_owned()), ("of".to_owned(), String::new())]),
        pin_update: Some(cid(OTHER)),
        origins: addresses(),
    }
}

pub(crate) fn pins() -> Vec<Pin> {
    let pin = |root: &str, kind: PinType, reference: Option<&str>| Pin {
        kind,
        allocations: vec![peer(PEER), peer(SILENT)],
        max_depth: PinDepth(if kind == PinType::Data { 0 } else { 1 }),
        reference: reference.map(cid),
        timestamp: time(),
        ..Pin::new(cid(root), options())
    };
    let request = PinningRequest {
        id: RequestNumber([7; 16]),
        user: "ann".to_owned(),
        name: "a & \"b\"".to_owned(),
        meta: options().metadata,
        origins: addresses(),
        created: Timestamp::from_unix_millis(1_800_000_000_123),
    };
    let requested = Pin { requests: vec![request], only_requested: true, ..pin(CID, PinType::Data, None) };
    vec![requested, pin(OTHER, PinType::Meta, Some(CID))]
}

pub(crate) fn infos() -> Vec<GlobalPinInfo> {
    let short = |name: &str, status: TrackerStatus, error: &str| PinInfoShort {
        peername: name.to_owned(),
        ipfs_peer_id: THIRD.to_owned(),
        ipfs_peer_addresses: addresses(),
        status,
        timestamp: time(),
        error: error.to_owned(),
        attempt_count: u32::from(!error.is_empty()),
        priority_pin: !error.is_empty(),
    };
    let info = |root: &str, peer_map: Vec<(&str, PinInfoShort)>| GlobalPinInfo {
        cid: cid(root),
        name: options().name,
        allocations: vec![peer(PEER), peer(SILENT)],
        origins: addresses(),
        created: time(),
        metadata: options().metadata,
        peer_map: peer_map.into_iter().map(|(peer, info)| (peer.to_owned(), info)).collect(),
    };
    let silent = PinInfoShort {
        ipfs_peer_id: String::new(),
        ipfs_peer_addresses: Vec::new(),
        ..short("", TrackerStatus::ClusterError, "no answer")
    };
    let well = vec![
        (PEER, short("one", TrackerStatus::Pinned, "")),
        (SILENT, silent),
        (THIRD, short("three", TrackerStatus::Remote, "")),
    ];
    let badly = TrackerStatus::ALL.into_iter().zip(1_u8..).map(|(status, number)| (number, short("x", status, "why")));
    let mut all = info(OTHER, Vec::new());
    // One peer for each status there is; their ids are made up.
    all.peer_map = badly.map(|(number, info)| (format!("{THIRD}{number}"), info)).collect();
    vec![info(CID, well), all]
}

pub(crate) fn graph() -> ConnectGraph {
    ConnectGraph {
        cluster_id: peer(PEER),
        id_to_peername: BTreeMap::from([(PEER.to_owned(), "one".to_owned()), (SILENT.to_owned(), String::new())]),
        ipfs_links: BTreeMap::from([(THIRD.to_owned(), vec![CID.to_owned(), SILENT.to_owned()])]),
        cluster_links: BTreeMap::from([(PEER.to_owned(), vec![SILENT.to_owned()]), (SILENT.to_owned(), Vec::new())]),
        cluster_trust_links: BTreeMap::from([(PEER.to_owned(), true), (SILENT.to_owned(), false)]),
        cluster_to_ipfs: BTreeMap::from([(PEER.to_owned(), THIRD.to_owned())]),
    }
}

pub(crate) fn alerts() -> Vec<Alert> {
    ["quorum", "digest", "tag:group"].map(|name| Alert { metric: metric(name, PEER), triggered_at: time() }).to_vec()
}

pub(crate) fn metrics(name: &str) -> Vec<Metric> {
    vec![metric(name, PEER), metric(name, THIRD)]
}

fn metric(name: &str, of: &str) -> Metric {
    Metric {
        name: name.to_owned(),
        peer: peer(of),
        value: "{\"peer_name\":\"one\"}".to_owned(),
        expire: 1_800_000_030_000_000_000,
        valid: true,
        weight: -7,
        partitionable: true,
        received_at: 1_800_000_000_000_000_000,
    }
}

pub(crate) fn garbage() -> GlobalRepoGc {
    let keys = vec![
        GcKey { key: Some(cid(CID)), error: String::new() },
        GcKey { key: None, error: "the block is in use".to_owned() },
    ];
    let one = RepoGc { peer: peer(PEER), peername: "one".to_owned(), keys, error: String::new() };
    let two = RepoGc { peer: peer(SILENT), peername: String::new(), keys: Vec::new(), error: "no answer".to_owned() };
    GlobalRepoGc { peer_map: BTreeMap::from([(PEER.to_owned(), one), (SILENT.to_owned(), two)]) }
}

pub(crate) fn added(name: &str, bytes: u64) -> AddedOutput {
    AddedOutput { name: name.to_owned(), cid: Some(cid(CID)), bytes, size: bytes, allocations: vec![peer(PEER)] }
}
