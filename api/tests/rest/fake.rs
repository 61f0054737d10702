//! A cluster that answers from a script and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::cluster::{
    AddEvent, ClusterService, Committed, Listing, NOT_PINNED, Reach, Search, ServiceResult, Window,
};
use cluster_core::follower::READ_ONLY;
use cluster_types::{
    AddParams, AddedOutput, Alert, Bandwidth, Cid, Commit, ConnectGraph, ErrorClass, Event, EventAuthor, EventParty,
    EventPlace, GcKey, GlobalPinInfo, GlobalRepoGc, Id, IpfsId, Metric, PeerId, Pin, PinInfoShort, PinOptions, PinType,
    PinTypeFilter, RepoGc, RepoStat, Role, StateReport, StatusFilter, Timestamp, TrackerStatus, WireError,
    parse_peer_id,
};
use futures::StreamExt;
use tokio::sync::{Notify, mpsc};

use crate::full;

pub(crate) const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
pub(crate) const OTHER: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
pub(crate) const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// How the fake answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Script {
    /// Everything works.
    #[default]
    Works,
    /// Everything works, and every field of the answers holds something.
    Full,
    /// Writes are accepted without a quorum.
    Eventual,
    /// Listings have no items.
    Empty,
    /// Everything fails.
    Fails(WireError),
    /// Listings fail after an item.
    FailsLate,
    /// Listings have no end.
    Endless,
    /// Writes wait for [`FakeCluster::go_on`].
    Waits,
    /// Listings panic after an item, everything else at once.
    Panics,
    /// Everything works, but this peer cannot follow its cluster.
    Stranded,
}

impl Script {
    /// The script of a golden file.
    pub(crate) fn named(name: &str) -> Self {
        let fails = |class, text: &str| Self::Fails(WireError::new(class, text));
        match name {
            "works" => Self::Works,
            "full" => Self::Full,
            "eventual" => Self::Eventual,
            "stranded" => Self::Stranded,
            "empty" => Self::Empty,
            "late" => Self::FailsLate,
            "not-pinned" => fails(ErrorClass::NotFound, NOT_PINNED),
            "not-found" => fails(ErrorClass::NotFound, "no such peer"),
            "malformed" => fails(ErrorClass::Malformed, "invalid CAR: it ends too early"),
            "invalid" => fails(ErrorClass::Invalid, "pin.ExpireAt set before current time"),
            "conflict" => fails(ErrorClass::Conflict, "cannot <repin> & go on"),
            "unavailable" => fails(ErrorClass::Unavailable, "no quorum: writes are refused"),
            "unknown" => fails(ErrorClass::Unknown, "the leader was lost"),
            "shard" => fails(ErrorClass::Conflict, "cannot unpin a shard directly. Unpin content root CID instead"),
            "cluster-dag" => {
                fails(ErrorClass::Conflict, "cannot unpin a Cluster DAG directly. Unpin content root CID instead")
            }
            "last-peer" => fails(ErrorClass::Conflict, "cannot remove ourselves from a 1-peer cluster"),
            "follower" => fails(ErrorClass::Invalid, READ_ONLY),
            "few-peers" => fails(ErrorClass::Conflict, "not enough peers to allocate CID"),
            "fatal" => fails(ErrorClass::Fatal, "the store is damaged"),
            other => unreachable!("no script is called {other}"),
        }
    }
}

/// The scripted cluster.
#[derive(Debug, Default)]
pub(crate) struct FakeCluster {
    script: Script,
    calls: Mutex<Vec<String>>,
    /// Wakes whoever waits for a call.
    pub(crate) called: Notify,
    /// Lets a write of [`Script::Waits`] go on.
    pub(crate) go_on: Notify,
}

impl FakeCluster {
    pub(crate) fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, ..Self::default() })
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Returns once a call that begins with `text` was made.
    pub(crate) async fn saw(&self, text: &str) {
        loop {
            let called = self.called.notified();
            tokio::pin!(called);
            called.as_mut().enable();
            if self.calls().iter().any(|call| call.starts_with(text)) {
                return;
            }
            let waited = tokio::time::timeout(std::time::Duration::from_secs(20), called).await;
            assert!(waited.is_ok(), "nobody called {text}: {:?}", self.calls());
        }
    }

    fn log(&self, call: impl Into<String>) -> ServiceResult<()> {
        self.calls.lock().unwrap().push(call.into());
        self.called.notify_waiters();
        assert_ne!(self.script, Script::Panics, "as the script wants it");
        if let Script::Fails(error) = &self.script { Err(error.clone()) } else { Ok(()) }
    }

    fn is_full(&self) -> bool {
        self.script == Script::Full
    }

    fn infos(&self) -> Vec<GlobalPinInfo> {
        if self.is_full() { full::infos() } else { vec![info(cid(CID)), info(cid(OTHER))] }
    }

    async fn write<T>(&self, call: String, value: T) -> ServiceResult<Committed<T>> {
        self.log(call)?;
        if self.script == Script::Waits {
            self.go_on.notified().await;
            self.log("went on")?;
        }
        let eventual = self.script == Script::Eventual;
        let commit = if eventual { Commit::Eventual } else { Commit::Log { term: 3, index: 42 } };
        Ok(Committed { value, commit })
    }

    fn list<T: Clone + Send + 'static>(&self, call: String, items: Vec<T>) -> Listing<T> {
        let mut results: Vec<ServiceResult<T>> = items.into_iter().map(Ok).collect();
        if self.script == Script::Panics {
            let broken = futures::stream::poll_fn(|_| panic!("as the script wants it"));
            return futures::stream::iter(results).chain(broken).boxed();
        }
        match (self.log(call), &self.script) {
            (Err(error), _) => results = vec![Err(error)],
            (Ok(()), Script::Empty) => results.clear(),
            (Ok(()), Script::FailsLate) => {
                results.push(Err(WireError::new(ErrorClass::Unavailable, "the peer\r\nwent away")));
            }
            (Ok(()), Script::Endless) => return futures::stream::iter(results.into_iter().cycle()).boxed(),
            (Ok(()), _) => {}
        }
        futures::stream::iter(results).boxed()
    }
}

/// What an upload asks for beyond the usual.
fn flags(params: &AddParams) -> String {
    let all = [
        ("cid-version=1", params.cid_version == 1),
        ("raw-leaves", params.raw_leaves),
        ("wrap", params.wrap_with_directory),
        ("local", params.local),
        ("no-pin", params.no_pin),
        ("shard", params.shard),
        ("progress", params.progress),
        ("array", !params.stream_channels),
    ];
    let set: Vec<&str> = all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    set.join(" ")
}

fn said(window: Window) -> String {
    let after = window.after.map(|cid| format!(" after {cid}")).unwrap_or_default();
    let limit = window.limit.map(|limit| format!(" at most {limit}")).unwrap_or_default();
    format!("{after}{limit}")
}

pub(crate) fn cid(text: &str) -> Cid {
    text.parse().unwrap()
}

fn peer() -> PeerId {
    parse_peer_id(PEER).unwrap()
}

fn time() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn pin(root: Cid, options: PinOptions) -> Pin {
    Pin { timestamp: time(), allocations: vec![peer()], ..Pin::new(root, options) }
}

fn id(id: PeerId) -> Id {
    Id {
        addresses: vec![format!("/ip4/127.0.0.1/tcp/9096/p2p/{PEER}").parse().unwrap()],
        cluster_peers: vec![id],
        version: "9.9.9".to_owned(),
        rpc_protocol_version: Id::RPC_PROTOCOL.to_owned(),
        ipfs: IpfsId { error: "the node does not answer".to_owned(), ..IpfsId::default() },
        peername: "one".to_owned(),
        ..Id::unreachable(id, String::new())
    }
}

fn info(root: Cid) -> GlobalPinInfo {
    let here = PinInfoShort {
        peername: "one".to_owned(),
        status: TrackerStatus::Pinned,
        timestamp: time(),
        ..PinInfoShort::default()
    };
    GlobalPinInfo {
        cid: root,
        name: "a <name>".to_owned(),
        allocations: vec![peer()],
        origins: Vec::new(),
        created: time(),
        metadata: BTreeMap::new(),
        peer_map: BTreeMap::from([(PEER.to_owned(), here)]),
    }
}

fn metric(name: &str) -> Metric {
    Metric {
        name: name.to_owned(),
        peer: peer(),
        value: "1".to_owned(),
        expire: 2,
        valid: true,
        weight: 3,
        partitionable: false,
        received_at: 1,
    }
}

fn event(index: u64, place: u32) -> Event {
    let kept = Some(pin(cid(CID), PinOptions { name: "kept".to_owned(), ..PinOptions::default() }));
    Event {
        cid: cid(CID),
        rule: "pin-beats-unpin".to_owned(),
        stale: false,
        time: time(),
        index,
        place,
        winner: EventParty { author: EventAuthor::Log, wish: "pin".to_owned(), time: time(), pin: kept },
        loser: EventParty { author: EventAuthor::Peer(peer()), wish: "unpin".to_owned(), time: time(), pin: None },
        message: format!("{CID}: kept the pin, not the unpin"),
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

#[async_trait]
impl ClusterService for FakeCluster {
    async fn id(&self) -> ServiceResult<Id> {
        self.log("id")?;
        Ok(if self.is_full() { full::peers().swap_remove(0) } else { id(peer()) })
    }

    async fn peers(&self) -> ServiceResult<Vec<Id>> {
        self.log("peers")?;
        Ok(match self.script {
            Script::Empty => Vec::new(),
            Script::Full => full::peers(),
            Script::Works
            | Script::Eventual
            | Script::Fails(_)
            | Script::FailsLate
            | Script::Endless
            | Script::Waits
            | Script::Panics
            | Script::Stranded => vec![id(peer())],
        })
    }

    async fn add_peer(&self, peer: PeerId) -> ServiceResult<Id> {
        self.log(format!("add_peer {peer}"))?;
        Ok(id(peer))
    }

    async fn remove_peer(&self, peer: PeerId) -> ServiceResult<()> {
        self.log(format!("remove_peer {peer}"))
    }

    async fn resolve(&self, path: &str) -> ServiceResult<Cid> {
        self.log(format!("resolve {path}"))?;
        Ok(path.split('/').nth(2).and_then(|root| root.parse().ok()).unwrap_or_else(|| cid(CID)))
    }

    async fn pin(&self, cid: Cid, options: PinOptions) -> ServiceResult<Committed<Pin>> {
        self.write(format!("pin {cid} {}", json(&options)), pin(cid, options)).await
    }

    async fn pin_path(&self, path: &str, options: PinOptions) -> ServiceResult<Committed<Pin>> {
        self.write(format!("pin_path {path} {}", json(&options)), pin(cid(CID), options)).await
    }

    async fn unpin(&self, cid: Cid) -> ServiceResult<Committed<Pin>> {
        self.write(format!("unpin {cid}"), pin(cid, PinOptions::default())).await
    }

    async fn unpin_path(&self, path: &str) -> ServiceResult<Committed<Pin>> {
        self.write(format!("unpin_path {path}"), pin(cid(CID), PinOptions::default())).await
    }

    fn allocations(&self, filter: PinTypeFilter, window: Window) -> Listing<Pin> {
        let kinds: Vec<_> = PinType::ALL.into_iter().filter(|kind| filter.matches(*kind)).collect();
        // What has no end is better in large pieces.
        let name = if self.script == Script::Endless { "x".repeat(4000) } else { String::new() };
        let options = PinOptions { name, ..PinOptions::default() };
        let plain = || vec![pin(cid(CID), options.clone()), pin(cid(OTHER), options.clone())];
        let pins = if self.is_full() { full::pins() } else { plain() };
        self.list(format!("allocations {}{}", json(&kinds), said(window)), pins)
    }

    fn search(&self, search: Search, _filter: PinTypeFilter, window: Window) -> Listing<Pin> {
        let pins = vec![pin(cid(OTHER), PinOptions::default()), pin(cid(CID), PinOptions::default())];
        self.list(format!("search {:?} {:?}{}", search.name_prefix, search.metadata, said(window)), pins)
    }

    async fn allocation(&self, cid: Cid) -> ServiceResult<Pin> {
        self.log(format!("allocation {cid}"))?;
        Ok(if self.is_full() { full::pins().swap_remove(1) } else { pin(cid, PinOptions::default()) })
    }

    async fn car(&self, cid: Cid) -> ServiceResult<Listing<Bytes>> {
        self.allocation(cid).await?;
        let pieces = ["a head", ", a block 0\r\n\r\n", " and more"].map(|piece| Bytes::from_static(piece.as_bytes()));
        Ok(self.list(format!("car {cid}"), pieces.into()))
    }

    fn statuses(&self, filter: StatusFilter, reach: Reach, window: Window) -> Listing<GlobalPinInfo> {
        self.list(format!("statuses {} {reach:?}{}", filter.bits(), said(window)), self.infos())
    }

    async fn status(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        self.log(format!("status {cid} {reach:?}"))?;
        if self.script == Script::FailsLate && cid.version() == 1 {
            return Err(WireError::new(ErrorClass::Unavailable, format!("no answer about {cid}")));
        }
        Ok(if self.is_full() { full::infos().swap_remove(1) } else { info(cid) })
    }

    fn recover_all(&self, reach: Reach) -> Listing<GlobalPinInfo> {
        self.list(format!("recover_all {reach:?}"), vec![info(cid(CID))])
    }

    async fn recover(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        Ok(self.write(format!("recover {cid} {reach:?}"), info(cid)).await?.value)
    }

    async fn add(
        &self,
        params: AddParams,
        mut events: mpsc::Receiver<ServiceResult<AddEvent>>,
    ) -> ServiceResult<Listing<AddedOutput>> {
        self.log(format!("add {:?} {} {}", params.format, params.chunker, params.options.name))?;
        let flags = flags(&params);
        if !flags.is_empty() {
            self.log(flags)?;
        }
        let late = self.script == Script::FailsLate;
        let mut log = Vec::new();
        let mut outputs = Vec::new();
        let (mut name, mut bytes) = (String::new(), 0);
        while let Some(event) = events.recv().await {
            match event {
                Ok(AddEvent::Data(data)) => {
                    assert!(!data.is_empty() && data.len() <= AddEvent::MAX_DATA);
                    if bytes == 0 {
                        self.log(format!("first data of {name}"))?;
                    }
                    bytes += data.len() as u64;
                }
                Ok(AddEvent::File { path }) => (name, bytes) = (path, 0),
                Ok(AddEvent::EndOfFile) => {
                    log.push(format!("file {name} of {bytes}"));
                    if params.progress {
                        outputs.push(Ok(AddedOutput { name: name.clone(), bytes, ..AddedOutput::default() }));
                    }
                    if self.is_full() {
                        outputs.push(Ok(full::added(&name, bytes)));
                        continue;
                    }
                    outputs.push(Ok(AddedOutput {
                        name: name.clone(),
                        cid: Some(cid(CID)),
                        size: bytes,
                        ..AddedOutput::default()
                    }));
                    if late {
                        break;
                    }
                }
                Ok(AddEvent::Directory { path }) => log.push(format!("directory {path}")),
                Ok(AddEvent::Symlink { path, target }) => log.push(format!("symlink {path} to {target}")),
                Err(error) => {
                    self.log(format!("aborted: {error}"))?;
                    return Ok(futures::stream::iter(vec![Err(error)]).boxed());
                }
            }
        }
        for entry in log {
            self.log(entry)?;
        }
        if late {
            outputs.push(Err(WireError::new(ErrorClass::Unavailable, "failed to put block on all destinations")));
        } else {
            self.log("pinned")?;
        }
        Ok(futures::stream::iter(outputs).boxed())
    }

    async fn metric_names(&self) -> ServiceResult<Vec<String>> {
        self.log("metric_names")?;
        Ok(vec!["ping".to_owned(), "freespace".to_owned()])
    }

    async fn metrics(&self, name: &str) -> ServiceResult<Vec<Metric>> {
        self.log(format!("metrics {name}"))?;
        Ok(match self.script {
            Script::Empty => Vec::new(),
            Script::Full => full::metrics(name),
            Script::Works
            | Script::Eventual
            | Script::Fails(_)
            | Script::FailsLate
            | Script::Endless
            | Script::Waits
            | Script::Panics
            | Script::Stranded => vec![metric(name)],
        })
    }

    async fn alerts(&self) -> ServiceResult<Vec<Alert>> {
        self.log("alerts")?;
        if self.is_full() {
            return Ok(full::alerts());
        }
        if self.script == Script::Empty {
            return Ok(Vec::new());
        }
        Ok(vec![Alert { metric: metric("ping"), triggered_at: time() }])
    }

    fn bandwidth(&self) -> Option<BTreeMap<String, Bandwidth>> {
        drop(self.log("bandwidth"));
        if self.script == Script::Empty {
            return None;
        }
        let counted = Bandwidth { total_in: 1_500, total_out: 20, rate_in: 1.5, rate_out: 0.25 };
        Some(BTreeMap::from([("/ipfs/ping/1.0.0".to_owned(), counted)]))
    }

    async fn connect_graph(&self) -> ServiceResult<ConnectGraph> {
        self.log("connect_graph")?;
        if self.is_full() {
            return Ok(full::graph());
        }
        Ok(ConnectGraph {
            cluster_id: peer(),
            id_to_peername: BTreeMap::from([(PEER.to_owned(), "one".to_owned())]),
            ipfs_links: BTreeMap::new(),
            cluster_links: BTreeMap::from([(PEER.to_owned(), Vec::new())]),
            cluster_trust_links: BTreeMap::from([(PEER.to_owned(), true)]),
            cluster_to_ipfs: BTreeMap::new(),
        })
    }

    async fn repo_stat(&self) -> ServiceResult<RepoStat> {
        self.log("repo_stat")?;
        Ok(RepoStat { repo_size: 300, storage_max: 3_000 })
    }

    async fn collect_garbage(&self, reach: Reach) -> ServiceResult<GlobalRepoGc> {
        self.log(format!("collect_garbage {reach:?}"))?;
        if self.is_full() {
            return Ok(full::garbage());
        }
        let keys = vec![GcKey { key: Some(cid(CID)), error: String::new() }];
        let gc = RepoGc { peer: peer(), peername: "one".to_owned(), keys, error: String::new() };
        Ok(GlobalRepoGc { peer_map: BTreeMap::from([(PEER.to_owned(), gc)]) })
    }

    fn events(&self, before: Option<EventPlace>, limit: usize) -> Listing<Event> {
        let before = before.map_or_else(|| "the end".to_owned(), |before| before.to_string());
        let stale = self.is_full();
        let events = [1, 0].map(|place| Event { stale, ..event(42, place) }).to_vec();
        self.list(format!("events before {before}, {limit}"), events)
    }

    async fn state(&self) -> ServiceResult<StateReport> {
        self.log("state")?;
        Ok(StateReport {
            applied_index: 41,
            committed_index: 42,
            term: 3,
            role: Role::Voter,
            leader: Some(peer()),
            digest: "ab".repeat(32),
            pins: 2,
            eventual: if self.is_full() { 3 } else { 0 },
        })
    }

    fn trouble(&self) -> Option<String> {
        (self.script == Script::Stranded).then(|| "everybody it knew is gone".to_owned())
    }

    fn has_quorum(&self) -> bool {
        !matches!(self.script, Script::Fails(_))
    }

    fn applied_index(&self) -> u64 {
        41
    }

    async fn read_barrier(&self) -> ServiceResult<()> {
        self.log("read_barrier")
    }
}
