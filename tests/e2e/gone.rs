//! Clients that stop reading, send half a request or leave: they hold up nobody, nothing of them stays in the process,
//! and their changes are carried out or not at all.
//!
//! Seeds are printed; `CLUSTER_GONE_SEED` replays the choices.

mod held;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT};
use cluster_tests::wait;
use cluster_types::{GlobalPinInfo, Pin, TrackerStatus};
use futures::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use self::held::Held;
use crate::client::{at_least, inline_cid};

/// How many clients stop in the middle, and how many of them are there at once.
const ABORTED: usize = 1_000;
const AT_ONCE: usize = 50;
/// What others wait for an answer at most, on a busy machine. Who is held up by a client that does not read waits for
/// minutes.
const BOUND: Duration = Duration::from_secs(10);
/// So many pins with names so long are more than the sockets and the server hold for a client that does not read.
const LISTED: u64 = 300;
const NAME: usize = 4_000;

/// How many changes lose their clients.
const CHANGES: u64 = 200;
const PEERS: usize = 3;

fn head(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// An upload of one file.
fn upload(query: &str, content: &str) -> Vec<u8> {
    let part = "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let body = format!("{part}{content}\r\n--edge--\r\n");
    let kind = format!("Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: {}\r\n", body.len());
    [head("POST", &format!("/add?{query}"), &kind), body.into_bytes()].concat()
}

/// A request on its own connection, and its answer.
async fn ask(port: u16, method: &str, target: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(&head(method, target, "Connection: close\r\nContent-Length: 0\r\n")).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The same, which must be an answer of success; how long it took.
async fn serve(port: u16, method: &str, target: &str) -> Duration {
    let start = Instant::now();
    let answer = tokio::time::timeout(BOUND, ask(port, method, target)).await;
    let answer = answer.unwrap_or_else(|_late| panic!("{method} {target}: held up for {BOUND:?}")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {target}: {answer}");
    start.elapsed()
}

/// A client that has stopped; to drop it is to leave.
enum Stopped {
    Tcp(#[expect(dead_code, reason = "it is kept open, no more")] TcpStream),
    Unix(#[expect(dead_code, reason = "it is kept open, no more")] UnixStream),
}

/// Sends what the client number `number` has to say, and no more.
async fn stop(number: usize, port: u16, unix: &Path) -> std::io::Result<Stopped> {
    let pin = format!("/pins/{}?name=stopped", inline_cid(1_000_000 + u64::try_from(number).unwrap_or(0)));
    let whole = upload("name=stopped", &format!("the content of {number}"));
    let sent = match number % 10 {
        0 => b"POST /pins/recover HTTP/1.1\r\nHost: loc".to_vec(),
        1 => head("POST", &pin, "Content-Length: 0\r\n"),
        2 => head("POST", &pin, "Content-Length: 100\r\n"),
        3 => whole[..whole.len() - 20].to_vec(),
        4 => whole,
        5 => head("GET", "/allocations", ""),
        6 => head("GET", "/pins", ""),
        7 => head("GET", "/events", ""),
        8 => head("DELETE", &pin, ""),
        _ => head("GET", "/id", "").repeat(10),
    };
    if !matches!(number % 10, 5 | 6) {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.write_all(&sent).await?;
        return Ok(Stopped::Tcp(socket));
    }
    // What the kernel keeps for a client that does not read is bounded here, and not some megabytes.
    let mut socket = UnixStream::connect(unix).await?;
    socket.write_all(&sent).await?;
    socket.read_exact(&mut [0; 12]).await?;
    Ok(Stopped::Unix(socket))
}

/// A peer that listens on a socket in the file system as well, with a long pinset.
async fn listing_peer() -> (ProcessCluster, PathBuf) {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let unix = cluster.peers[peer].folder.join("api.sock");
    let listen = format!("/ip4/127.0.0.1/tcp/{},/unix{}", cluster.api_port(peer), unix.display());
    cluster.set_variable(peer, "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", &listen);
    cluster.start_peer(peer).await.unwrap();
    let (name, port) = ("x".repeat(NAME), cluster.api_port(peer));
    for numbers in (0..LISTED).collect::<Vec<_>>().chunks(50) {
        let targets = numbers.iter().map(|number| format!("/pins/{}?name={name}", inline_cid(*number)));
        join_all(targets.map(|target| async move { serve(port, "POST", &target).await })).await;
    }
    (cluster, unix)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_the_middle_holds_up_nobody_and_leaves_nothing() {
    let (cluster, unix) = listing_peer().await;
    let (pid, port) = (cluster.pid(0).unwrap(), cluster.api_port(0));
    let mut slowest = Duration::ZERO;
    let mut before = None;
    // The first come before anything is counted: threads and files that are made once are no leak.
    for wave in 0..=ABORTED / AT_ONCE {
        let numbers = wave * AT_ONCE..(wave + 1) * AT_ONCE;
        let stopped = try_join_all(numbers.map(|number| stop(number, port, &unix))).await.unwrap();
        let (id, version) = (("GET", "/id".to_owned()), ("GET", "/version".to_owned()));
        let pin = ("POST", format!("/pins/{}?name=served", inline_cid(2_000_000)));
        let listing = ("GET", "/allocations".to_owned());
        for (method, target) in [id, version, pin, listing] {
            slowest = slowest.max(serve(port, method, &target).await);
        }
        drop(stopped);
        if wave == 0 {
            before = Some(Held::at_rest(pid).await);
        }
    }
    let before = before.unwrap();
    let after = before.is_all(pid).await;
    println!(
        "{ABORTED} clients stopped in the middle; {before} before, {after} after; others were served in {slowest:?}"
    );
    assert_eq!(cluster.stop(0).await.unwrap(), Some(0));
}

/// What a client asks for before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Pin,
    Add,
    Unpin,
}

/// A change whose client left.
#[derive(Debug)]
struct Left {
    change: Change,
    number: u64,
    /// Whether it had sent everything.
    is_whole: bool,
}

impl Left {
    /// The name of the pin that it makes or ends.
    fn name(&self) -> String {
        format!("{:?}-{}", self.change, self.number)
    }

    fn request(&self) -> Vec<u8> {
        let options = options(&self.name());
        let cid = inline_cid(self.number);
        match self.change {
            Change::Pin => head("POST", &format!("/pins/{cid}?{options}"), "Content-Length: 0\r\n"),
            Change::Unpin => head("DELETE", &format!("/pins/{cid}"), ""),
            Change::Add => upload(&options, &format!("what {} brought", self.name())),
        }
    }

    /// Whether the cluster may hold its pin, or be without it.
    fn may_be(&self, is_there: bool) -> bool {
        self.is_whole || is_there == (self.change == Change::Unpin)
    }
}

fn options(name: &str) -> String {
    format!("name={name}&meta-of={name}&replication-min=-1&replication-max=-1")
}

/// Asks a peer for a change, whole or in part, and leaves: at once or after some time, in order or not.
async fn leave(cluster: &ProcessCluster, number: u64, chance: &mut StdRng) -> Left {
    let change = [Change::Pin, Change::Pin, Change::Add, Change::Unpin][usize::try_from(number % 4).unwrap()];
    let left = Left { change, number, is_whole: !chance.random_ratio(1, 4) };
    let peer = chance.random_range(0..PEERS);
    if change == Change::Unpin {
        let target = format!("/pins/{}?{}", inline_cid(number), options(&left.name()));
        serve(cluster.api_port(peer), "POST", &target).await;
    }
    let mut request = left.request();
    if !left.is_whole {
        request.truncate(chance.random_range(1..request.len()));
    }
    let pause = Duration::from_micros(chance.random_range(0..30_000));
    let is_cut = chance.random_bool(0.5);
    let mut socket = TcpStream::connect(("127.0.0.1", cluster.api_port(peer))).await.unwrap();
    if is_cut {
        socket.set_zero_linger().unwrap();
    }
    socket.write_all(&request).await.unwrap();
    // The length of the pause decides where in its work the peer is left.
    tokio::time::sleep(pause).await;
    left
}

/// What every peer holds, by name, when all have come to rest; the same on all, and each with all of its options.
async fn held_by_all(cluster: &ProcessCluster) -> BTreeMap<String, Pin> {
    let state = cluster.wait_equal().await;
    let mut all = Vec::new();
    for peer in 0..PEERS {
        let pins = cluster.pins(peer).await.unwrap();
        assert_eq!(u64::try_from(pins.len()).unwrap(), state.pins, "peer {peer}");
        all.push(pins.into_values().map(|pin| (pin.options.name.clone(), pin)).collect::<BTreeMap<_, _>>());
    }
    let first = all.swap_remove(0);
    for others in all {
        assert_eq!(first, others);
    }
    for (name, pin) in &first {
        let options = &pin.options;
        assert_eq!(options.metadata.get("of"), Some(name), "{pin:?}");
        assert_eq!((options.replication_factor_min, options.replication_factor_max), (-1, -1), "{pin:?}");
    }
    first
}

/// Waits until every peer has pinned at its node what the pinset says, and nothing else is on its way.
async fn pinned_by_all(cluster: &ProcessCluster, pins: usize) {
    wait::until("all peers to have pinned", START_LIMIT, || async {
        let listing = cluster.http(0).get(cluster.url(0, "/pins")).send().await.unwrap().text().await.unwrap();
        let infos: Vec<GlobalPinInfo> = listing.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let is_pinned = |info: &GlobalPinInfo| {
            info.peer_map.len() == PEERS && info.peer_map.values().all(|at| at.status == TrackerStatus::Pinned)
        };
        let pinned = infos.iter().filter(|info| is_pinned(info)).count();
        if (pinned, infos.len()) == (pins, pins) { Ok(()) } else { Err((pinned, infos.len(), pins)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_client_left_is_carried_out_on_all_peers_or_on_none() {
    let seed = std::env::var("CLUSTER_GONE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("CLUSTER_GONE_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    let mut all = Vec::new();
    for number in 0..CHANGES {
        all.push(leave(&cluster, number, &mut chance).await);
    }
    let held = held_by_all(&cluster).await;
    let is_there: Vec<bool> = all.iter().map(|left| held.contains_key(&left.name())).collect();
    for (left, is_there) in all.iter().zip(&is_there) {
        assert!(left.may_be(*is_there), "{left:?} is there: {is_there}");
    }
    pinned_by_all(&cluster, held.len()).await;
    let done = |wanted| {
        let pairs = all.iter().zip(&is_there).filter(move |(left, _)| left.is_whole && left.change == wanted);
        pairs.filter(|(left, is_there)| **is_there != (left.change == Change::Unpin)).count()
    };
    let whole = all.iter().filter(|left| left.is_whole).count();
    let carried_out = [Change::Pin, Change::Add, Change::Unpin].map(done);
    println!(
        "{CHANGES} clients left, {whole} of them after all was sent: carried out {carried_out:?} (pin, add, unpin)"
    );
    for count in carried_out {
        at_least("changes of each kind without a client", count, 5).unwrap();
    }
    at_least("requests in part", all.len() - whole, 20).unwrap();
    assert_eq!(held.len(), is_there.iter().filter(|is_there| **is_there).count(), "nothing else is there");
}
