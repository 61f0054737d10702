//! The pinning service over real sockets: requests and answers as files in `tests/golden-pinsvc`, as those of the REST API.
//! The first line names who is let in: `open` everybody, `guarded` users with passwords; `down` after it has every call
//! fail, `full` every write be refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cluster_api::{ApiServer, Credentials, PinningServer, RestConfig, Scope, Scopes};
use cluster_core::cluster::{
    Committed, Listing, NOT_PINNED, PinningService, Requested, RequestsOf, ServiceResult, WantedPin,
};
use cluster_core::task::TaskGroup;
use cluster_types::{
    Cid, Commit, ErrorClass, GlobalPinInfo, Pin, PinInfoShort, PinOptions, PinningRequest, Protocol, RequestId,
    RequestNumber, Timestamp, TrackerStatus, WireError, parse_peer_id,
};
use futures::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::fake::{CID, FakeCluster, OTHER, PEER, Script};
use crate::golden::{SEPARATOR, bytes_of, without_date};
use crate::harness::{config, read_all, status};

const THIRD: &str = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
const PLAIN: &str = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";

/// What a call comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    Down,
    Full,
}

/// Keeps requests in memory.
struct FakePinning {
    mood: Mood,
    pins: Mutex<Vec<Pin>>,
    calls: Mutex<Vec<String>>,
}

fn request(number: u8, user: &str, name: &str, seconds: i64) -> PinningRequest {
    let meta = if number.is_multiple_of(2) { [("app".to_owned(), "x".to_owned())].into() } else { BTreeMap::new() };
    PinningRequest {
        id: RequestNumber([number; 16]),
        user: user.to_owned(),
        name: name.to_owned(),
        meta,
        origins: Vec::new(),
        created: Timestamp::from_unix_millis(1_800_000_000_000 + seconds * 1000 + 5),
    }
}

fn pin(cid: &str, requests: &[PinningRequest]) -> Pin {
    let options = PinOptions {
        name: "plain".to_owned(),
        replication_factor_min: 1,
        replication_factor_max: 1,
        ..PinOptions::default()
    };
    Pin {
        timestamp: Timestamp::from_unix_seconds(1_800_000_000),
        allocations: vec![parse_peer_id(PEER).unwrap()],
        requests: requests.to_vec(),
        ..Pin::new(cid.parse().unwrap(), options)
    }
}

impl FakePinning {
    fn new(mood: Mood) -> Self {
        let several = [
            request(1, "ann", "apple", 1),
            request(2, "ann", "Apple pie", 2),
            request(3, "bob", "of bob", 3),
            request(6, "", "apple", 6),
        ];
        let pins = vec![
            pin(CID, &several),
            pin(OTHER, &[request(4, "ann", "banana", 4), request(8, "", "", 8)]),
            pin(THIRD, &[request(5, "ann", "pineapple", 5), request(7, "", "Apple pie", 7)]),
            pin(PLAIN, &[]),
        ];
        Self { mood, pins: Mutex::new(pins), calls: Mutex::default() }
    }

    fn write(&self, call: String) -> ServiceResult<()> {
        self.calls.lock().unwrap().push(call);
        match self.mood {
            Mood::Works => Ok(()),
            Mood::Down => self.up(),
            Mood::Full => {
                Err(WireError::new(ErrorClass::Invalid, "the pin's requests take 70000 bytes; at most 65536 are kept"))
            }
        }
    }

    fn up(&self) -> ServiceResult<()> {
        match self.mood {
            Mood::Works | Mood::Full => Ok(()),
            Mood::Down => Err(WireError::new(ErrorClass::Unavailable, "no quorum: nobody answers")),
        }
    }
}

#[async_trait]
impl PinningService for FakePinning {
    async fn request(&self, wanted: WantedPin, instead_of: Option<RequestId>) -> ServiceResult<Committed<Requested>> {
        let of = instead_of.map(|id| format!(" instead of {}", &id.to_string()[..2])).unwrap_or_default();
        let WantedPin { id: _, cid, user, name, meta, origins } = wanted;
        self.write(format!("request {cid} user={user:?} name={name:?} meta={meta:?} origins={origins:?}{of}"))?;
        let created = Timestamp::from_unix_millis(1_800_000_100_000);
        let request = PinningRequest { id: RequestNumber([0xaa; 16]), user, name, meta, origins, created };
        let pin = pin(&cid.to_string(), std::slice::from_ref(&request));
        Ok(Committed { value: Requested { request, pin }, commit: Commit::Eventual })
    }

    async fn withdraw(&self, user: &str, id: RequestId) -> ServiceResult<Committed<Pin>> {
        self.write(format!("withdraw {} user={user:?}", &id.to_string()[..2]))?;
        Ok(Committed { value: pin(&id.cid.to_string(), &[]), commit: Commit::Eventual })
    }

    fn requests(&self, which: RequestsOf) -> Listing<Requested> {
        if let Err(error) = self.up() {
            return stream::iter([Err(error)]).boxed();
        }
        let pins = self.pins.lock().unwrap().clone();
        let of_pin = |pin: &Pin| {
            let pin = pin.clone();
            let requests = pin.requests.clone().into_iter();
            requests.map(move |request| Requested { request, pin: pin.clone() }).collect::<Vec<_>>()
        };
        let mut found: Vec<Requested> = pins.iter().flat_map(of_pin).collect();
        found.retain(|requested| {
            let request = &requested.request;
            request.user == which.user
                && which.name.as_ref().is_none_or(|name| request.name == *name)
                && which.before.is_none_or(|before| request.created < before)
                && which.after.is_none_or(|after| request.created > after)
        });
        found.sort_by_key(|requested| requested.request.place());
        stream::iter(found.into_iter().map(Ok)).boxed()
    }

    async fn requested(&self, cid: Cid) -> ServiceResult<Pin> {
        self.up()?;
        let found = self.pins.lock().unwrap().iter().find(|pin| pin.cid == cid).cloned();
        found.ok_or_else(|| WireError::new(ErrorClass::NotFound, NOT_PINNED))
    }

    async fn statuses_of(&self, pins: &[Pin]) -> ServiceResult<Vec<GlobalPinInfo>> {
        let info = |pin: &Pin| {
            let (status, error) = match pin.cid.to_string().as_str() {
                CID | PLAIN => (TrackerStatus::Pinned, ""),
                OTHER => (TrackerStatus::Pinning, ""),
                THIRD => (TrackerStatus::PinError, "nobody has it"),
                _ => (TrackerStatus::Unpinned, ""),
            };
            let here = PinInfoShort {
                status,
                error: error.to_owned(),
                ipfs_peer_addresses: vec![format!("/ip4/127.0.0.1/tcp/4001/p2p/{PEER}").parse().unwrap()],
                ..PinInfoShort::default()
            };
            GlobalPinInfo {
                cid: pin.cid,
                name: String::new(),
                allocations: pin.allocations.clone(),
                origins: Vec::new(),
                created: pin.timestamp,
                metadata: BTreeMap::new(),
                peer_map: BTreeMap::from([(PEER.to_owned(), here)]),
            }
        };
        Ok(pins.iter().map(info).collect())
    }
}

/// `ann` may do everything, `bob` only look.
fn guarded() -> RestConfig {
    let pairs = [("ann", "secret"), ("bob", "looks")];
    let mut users = Credentials::new(pairs.map(|(user, word)| (user.to_owned(), word.to_owned())).into());
    users.scopes.insert("bob".to_owned(), Scopes::from_iter([Scope::Read]));
    RestConfig { credentials: Some(users), ..config() }
}

/// A pinning service, and what is behind it.
struct World {
    server: PinningServer,
    pinning: Arc<FakePinning>,
    cluster: Arc<FakeCluster>,
    _tasks: TaskGroup,
}

impl World {
    async fn new(config: RestConfig, mood: Mood) -> Self {
        let (pinning, cluster, tasks) =
            (Arc::new(FakePinning::new(mood)), FakeCluster::new(Script::Works), TaskGroup::new());
        let server = ApiServer::bind(config).await.unwrap().open_pinning(&tasks);
        server.begin(Arc::clone(&cluster) as _, Arc::clone(&pinning) as _);
        Self { server, pinning, cluster, _tasks: tasks }
    }

    /// Sends bytes as they are, and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut parts = self.server.local_addresses().iter().flat_map(|address| address.iter());
        let port = parts.find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
        let mut socket = TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = socket.write_all(bytes).await;
        read_all(&mut socket).await
    }

    fn calls(&self) -> Vec<String> {
        let of_cluster = self.cluster.calls().into_iter().map(|call| format!("cluster: {call}"));
        self.pinning.calls.lock().unwrap().clone().into_iter().chain(of_cluster).collect()
    }
}

#[tokio::test]
async fn answers_of_the_pinning_service_are_those_of_the_golden_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden-pinsvc");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 50, "golden files are missing");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let asked = text.split(SEPARATOR).next().unwrap();
        let (script, asked_text) = asked.split_once('\n').unwrap();
        let (who, mood) = script.split_once(' ').unwrap_or((script, ""));
        let mood = match mood {
            "" => Mood::Works,
            "down" => Mood::Down,
            "full" => Mood::Full,
            other => panic!("{}: {other}", file.display()),
        };
        let world = World::new(if who == "guarded" { guarded() } else { config() }, mood).await;
        let answer = world.raw(&bytes_of(asked_text)).await;
        let calls = world.calls();
        if (400..500).contains(&status(&answer)) && mood != Mood::Full {
            assert!(calls.is_empty(), "{}: {calls:?}", file.display());
        }
        let calls: String = calls.iter().map(|call| format!("{call}\n")).collect();
        let seen = format!("{asked}{SEPARATOR}{}{SEPARATOR}{calls}", without_date(&answer));
        if update {
            std::fs::write(&file, &seen).unwrap();
        } else if seen != text {
            wrong.push(format!("{}\n--- expected\n{text}\n--- seen\n{seen}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
