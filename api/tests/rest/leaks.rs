//! Clients that stop in the middle, a thousand of each kind: they hold up nobody, and nothing of them stays.

use std::path::PathBuf;
use std::time::Duration;

use cluster_api::RestConfig;
use cluster_types::parse_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio_util::either::Either;

use crate::fake::{CID, Script};
use crate::harness::{World, config, read_until, status};

const TIMES: usize = 1_000;
/// How many of them are there at once.
const AT_ONCE: usize = 100;
/// Longer than it takes to notice that they are gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server listens.
enum Place {
    Port(u16),
    File(PathBuf),
}

impl Place {
    /// How many sockets of the server there are.
    fn sockets(&self) -> usize {
        match self {
            Self::Port(port) => {
                let port = format!(":{port:04X}");
                lines("/proc/net/tcp", |line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    // What has no inode is the kernel's alone: it waits until nothing of it can be under way any more.
                    fields[1].ends_with(&port) && fields[9] != "0"
                })
            }
            Self::File(path) => {
                let path = path.display().to_string();
                lines("/proc/net/unix", |line| line.ends_with(&path))
            }
        }
    }

    /// A client that has sent `bytes`.
    async fn connect(&self, bytes: &[u8]) -> Either<TcpStream, UnixStream> {
        let mut client = match self {
            Self::Port(port) => Either::Left(TcpStream::connect(("127.0.0.1", *port)).await.unwrap()),
            Self::File(path) => Either::Right(UnixStream::connect(path).await.unwrap()),
        };
        client.write_all(bytes).await.unwrap();
        client
    }
}

/// How many lines of a table of the system, after its heading, are meant.
fn lines(table: &str, is_meant: impl Fn(&str) -> bool) -> usize {
    std::fs::read_to_string(table).unwrap().lines().skip(1).filter(|line| is_meant(line)).count()
}

/// What a server holds: tasks of this runtime, and sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    tasks: usize,
    sockets: usize,
}

impl Held {
    fn at(place: &Place) -> Self {
        Self { tasks: Handle::current().metrics().num_alive_tasks(), sockets: place.sockets() }
    }

    /// Waits until as much is held as then.
    async fn is_all(self, place: &Place) {
        let wait = async {
            while Self::at(place) != self {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{self:?} before, {:?} now", Self::at(place));
    }
}

/// Has clients send `bytes` and no more, many times, and checks that others are served all the while and that nothing
/// stays.
async fn stop_after(bytes: &[u8]) -> World {
    let world = World::with(RestConfig { max_connections: AT_ONCE + 10, ..config() }, Script::Works).await;
    let place = Place::Port(world.port);
    stop_at(&world, &place, bytes, None).await;
    world
}

/// The same; `reads`: what they wait for before they stop.
async fn stop_at(world: &World, place: &Place, bytes: &[u8], reads: Option<&str>) {
    assert_eq!(status(&world.ask("GET", "/health").await), 204);
    let before = Held::at(place);
    assert_eq!(before.sockets, 1, "the listener");
    for _ in 0..TIMES / AT_ONCE {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            let mut client = place.connect(bytes).await;
            if let Some(text) = reads {
                read_until(&mut client, text).await;
            }
            clients.push(client);
        }
        assert_eq!(status(&world.ask("GET", "/version").await), 200, "others are served");
        drop(clients);
    }
    before.is_all(place).await;
}

#[tokio::test]
async fn half_a_head() {
    let world = stop_after(b"POST /pins/recover HTTP/1.1\r\nHost: loc").await;
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn half_a_body() {
    let head = "POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n{\"peer_id\":";
    let world = stop_after(head.as_bytes()).await;
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn half_an_upload() {
    let head = "POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=edge\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let part = "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nthe begin";
    let sent = format!("{head}{:x}\r\n{part}\r\n", part.len());
    let world = stop_after(sent.as_bytes()).await;
    assert!(world.cluster.calls().iter().all(|call| !call.starts_with("pin ")), "{:?}", world.cluster.calls().first());
}

#[tokio::test]
async fn a_listing_that_is_not_read() {
    // What the kernel keeps for a client that does not read is bounded there, and not some megabytes each.
    let file = std::env::temp_dir().join(format!("cluster-api-leaks-{}.sock", std::process::id()));
    let unix = parse_address(&format!("/unix{}", file.display())).unwrap();
    let listen = [config().listen, vec![unix]].concat();
    let many = RestConfig { max_connections: AT_ONCE + 10, listen, ..config() };
    let world = World::with(many, Script::Endless).await;
    let ask = b"GET /allocations HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stop_at(&world, &Place::File(file), ask, Some(CID)).await;
    assert_eq!(world.cluster.calls().len(), TIMES);
}

#[tokio::test]
async fn a_listing_has_to_end_in_time() {
    let brief = RestConfig { write_timeout: Some(Duration::from_millis(300)), ..config() };
    let world = World::with(brief, Script::Endless).await;
    let answer = world.ask("GET", "/allocations").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(CID));
    assert!(!answer.ends_with("0\r\n\r\n"), "cut off, not ended");
}

#[tokio::test]
async fn a_write_whose_client_leaves_at_once() {
    let ask = format!("POST /pins/{CID} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let world = stop_after(ask.as_bytes()).await;
    assert_eq!(world.cluster.calls().len(), TIMES, "all of them are carried out");
}

#[tokio::test]
async fn answers_that_nobody_waits_for() {
    let ask = b"GET /id HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let world = stop_after(&ask).await;
    // Not one request too much: a server that reads on for ever would not come to the end of this test.
    assert!(world.cluster.calls().len() <= TIMES * 20);
    let mut last = world.connect().await;
    last.write_all(b"GET /id HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    last.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
