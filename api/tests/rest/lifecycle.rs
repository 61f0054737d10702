//! Starting, stopping, and writes that outlive their clients.

use std::time::Duration;

use cluster_api::{ApiError, ApiServer, RestConfig};
use cluster_core::task::TaskGroup;
use cluster_types::{ErrorClass, WireError, parse_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::fake::{CID, FakeCluster, Script};
use crate::harness::{World, config, read_all, read_until, request, status};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_write_goes_on_when_its_client_is_gone() {
    let world = World::with(RestConfig { max_connections: 1, ..config() }, Script::Waits).await;
    let mut socket = world.connect().await;
    socket.write_all(&request("POST", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    world.cluster.saw("pin ").await;
    drop(socket);
    // The only place for a connection is free again once the server has noticed.
    assert_eq!(status(&world.ask("GET", "/id").await), 200);
    world.cluster.go_on.notify_one();
    world.cluster.saw("went on").await;
    assert!(world.server.stop(LONG).await);
}

#[tokio::test]
async fn health_is_bad_only_when_somebody_must_come() {
    let down = Script::Fails(WireError::new(ErrorClass::Unavailable, "no quorum"));
    assert_eq!(status(&World::new(down).await.ask("GET", "/health").await), 204);
    let answer = World::new(Script::Stranded).await.ask("GET", "/health").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("everybody it knew is gone"), "{answer}");
}

#[tokio::test]
async fn a_peer_that_joins_says_that_it_lives_and_lets_the_rest_wait() {
    let (cluster, tasks) = (FakeCluster::new(Script::Works), TaskGroup::new());
    let server = ApiServer::bind(config()).await.unwrap().open(&tasks);
    let world = World::of(server, cluster.clone(), tasks);
    let mut waiting = world.connect().await;
    waiting.write_all(&request("POST", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    let health = world.ask("GET", "/health").await;
    assert!(status(&health) == 204 && health.to_lowercase().contains("x-cluster-quorum: false"), "{health}");
    assert_eq!(status(&world.ask("GET", "/version").await), 200);
    assert_eq!(status(&world.ask("GET", "/nowhere").await), 404);
    assert_eq!(cluster.calls(), Vec::<String>::new());
    world.server.begin(cluster.clone());
    assert_eq!(status(&read_all(&mut waiting).await), 200);
    assert_eq!(status(&world.ask("GET", "/id").await), 200);
}

#[tokio::test]
async fn who_waits_for_a_peer_that_does_not_start_is_told_so() {
    let (cluster, tasks) = (FakeCluster::new(Script::Works), TaskGroup::new());
    let hasty = RestConfig { start_timeout: Duration::from_millis(50), ..config() };
    let world = World::of(ApiServer::bind(hasty).await.unwrap().open(&tasks), cluster.clone(), tasks);
    let answer = world.ask("DELETE", &format!("/pins/{CID}")).await;
    assert!(status(&answer) == 503 && answer.contains("\"outcome\":\"failed\""), "{answer}");
    let tasks = TaskGroup::new();
    let patient = World::of(ApiServer::bind(config()).await.unwrap().open(&tasks), cluster.clone(), tasks);
    let mut waiting = patient.connect().await;
    waiting.write_all(&request("GET", "/id", "", b"")).await.unwrap();
    assert_eq!(status(&patient.ask("GET", "/health").await), 204);
    let (late, answer) = tokio::join!(patient.tasks.shut_down(LONG), read_all(&mut waiting));
    assert!(late.is_empty() && (answer.is_empty() || status(&answer) == 503), "{late:?} {answer}");
    assert_eq!(cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn stopping_waits_for_running_requests_and_refuses_new_ones() {
    let world = World::new(Script::Waits).await;
    let mut running = world.connect().await;
    let mut kept = world.connect().await;
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut kept, "\r\n\r\n").await;
    running.write_all(&request("DELETE", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    world.cluster.saw("unpin ").await;
    let (cluster, port) = (world.cluster.clone(), world.port);
    let stop = world.server.stop(LONG);
    let client = async {
        assert_eq!(read_all(&mut kept).await, "", "an idle connection is closed at once");
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
        cluster.go_on.notify_one();
        assert_eq!(status(&read_all(&mut running).await), 200);
    };
    let (in_time, ()) = tokio::join!(stop, client);
    assert!(in_time);
    assert!(world.tasks.shut_down(LONG).await.is_empty());
}

#[tokio::test]
async fn what_is_late_is_cut_but_its_write_goes_on() {
    let world = World::new(Script::Waits).await;
    let mut running = world.connect().await;
    running.write_all(&request("DELETE", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    world.cluster.saw("unpin ").await;
    assert!(!world.server.stop(Duration::from_millis(1)).await);
    assert_eq!(read_all(&mut running).await, "");
    world.cluster.go_on.notify_one();
    world.cluster.saw("went on").await;
}

#[tokio::test]
async fn writes_above_the_limit_are_refused_without_effect() {
    let world = World::with(RestConfig { max_writes: 1, ..config() }, Script::Waits).await;
    let mut first = world.connect().await;
    first.write_all(&request("POST", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    world.cluster.saw("pin ").await;
    let refused = world.ask("DELETE", &format!("/pins/{CID}")).await;
    assert_eq!(status(&refused), 503);
    assert!(refused.contains("\"outcome\":\"failed\""), "{refused}");
    assert_eq!(world.cluster.calls().len(), 1);
    world.cluster.go_on.notify_one();
    assert_eq!(status(&read_all(&mut first).await), 200);
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_free_place() {
    let world = World::with(RestConfig { max_connections: 1, ..config() }, Script::Works).await;
    let mut first = world.connect().await;
    first.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "\r\n\r\n").await;
    let mut second = world.connect().await;
    second.write_all(&request("GET", "/id", "", b"")).await.unwrap();
    // Meanwhile the first is served again and again: a second that was accepted would have had its turn.
    for _ in 0..20 {
        first.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut first, "\r\n\r\n").await;
    }
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
    drop(first);
    assert_eq!(status(&read_all(&mut second).await), 200);
}

#[tokio::test]
async fn a_full_house_still_says_that_it_lives() {
    let world = World::with(RestConfig { max_connections: 1, ..config() }, Script::Works).await;
    let mut first = world.connect().await;
    first.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "\"version\"").await;
    let mut second = world.connect().await;
    second
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /id HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let answers = read_all(&mut second).await;
    assert!(status(&answers) == 204 && answers.to_lowercase().contains("\r\nconnection: close\r\n"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
    assert_eq!(status(&world.ask("GET", "/id").await), 503, "nobody leaves");
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn one_address_does_not_get_all_places() {
    let world = World::with(RestConfig { max_connections_per_ip: 1, ..config() }, Script::Works).await;
    let mut first = world.connect().await;
    first.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "\r\n\r\n").await;
    assert_eq!(world.ask("GET", "/id").await, "");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(([127, 0, 0, 1], world.port).into()).await.unwrap();
    other.write_all(&request("GET", "/id", "", b"")).await.unwrap();
    assert_eq!(status(&read_all(&mut other).await), 200);
    drop(first);
    let again = async {
        while world.ask("GET", "/version").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
}

#[tokio::test]
async fn several_listeners_serve_the_same_cluster() {
    let path = std::env::temp_dir().join(format!("cluster-api-{}.sock", std::process::id()));
    let unix = parse_address(&format!("/unix{}", path.display())).unwrap();
    let config = RestConfig { listen: [config().listen, vec![unix.clone()]].concat(), ..config() };
    let world = World::with(config, Script::Works).await;
    assert_eq!(world.server.local_addresses()[1], unix);
    assert_eq!(status(&world.ask("GET", "/version").await), 200);
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(&request("GET", "/id", "", b"")).await.unwrap();
    assert_eq!(status(&read_all(&mut socket).await), 200);
    assert!(world.server.stop(LONG).await);
    assert!(!path.exists());
}

#[tokio::test]
async fn streams_from_elsewhere_are_served_as_sockets_are() {
    let (cluster, tasks) = (FakeCluster::new(Script::Works), TaskGroup::new());
    let mut bound = ApiServer::bind(config()).await.unwrap();
    let (streams, taken) = tokio::sync::mpsc::channel(4);
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
    bound.also_serve(taken);
    let world = World::of(bound.serve(cluster.clone(), &tasks), cluster, tasks);
    for _ in 0..2 {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let stream = cluster_api::Carried { stream: Box::new(theirs), peer, address: None };
        assert!(streams.send(stream).await.is_ok());
        ours.write_all(b"GET /id HTTP/1.1\r\nHost: 12D3KooW\r\nConnection: close\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_all(&mut ours).await), 200);
    }
    drop(streams);
    assert_eq!(status(&world.ask("GET", "/id").await), 200, "the sockets do not end with them");
    assert!(world.server.stop(LONG).await);
}

#[tokio::test]
async fn streams_from_elsewhere_count_for_their_address_or_else_their_peer() {
    let (cluster, tasks) = (FakeCluster::new(Script::Works), TaskGroup::new());
    let limited = RestConfig { max_connections_per_ip: 1, ..config() };
    let mut bound = ApiServer::bind(limited).await.unwrap();
    let (streams, taken) = tokio::sync::mpsc::channel(4);
    bound.also_serve(taken);
    let world = World::of(bound.serve(cluster.clone(), &tasks), cluster, tasks);
    let ids =
        ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"];
    let [one, other] = ids.map(|id| cluster_types::parse_peer_id(id).unwrap());
    let place = Some([192, 0, 2, 7].into());
    // The first of a kind stays; the second is closed, and the third is of another kind.
    let mut kept = Vec::new();
    for (peer, address, is_served) in
        [(one, None, true), (one, None, false), (other, None, true), (one, place, true), (other, place, false)]
    {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let stream = cluster_api::Carried { stream: Box::new(theirs), peer, address };
        assert!(streams.send(stream).await.is_ok());
        // One that is closed cannot be written to.
        ours.write_all(b"GET /health HTTP/1.1\r\nHost: 12D3KooW\r\n\r\n").await.ok();
        let mut first = [0; 12];
        let answered = tokio::time::timeout(LONG, ours.read_exact(&mut first)).await.unwrap().is_ok();
        assert_eq!(answered, is_served, "{peer} {address:?}");
        kept.push(ours);
    }
    drop(kept);
    assert!(world.server.stop(LONG).await);
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error_at_the_start() {
    let nothing = RestConfig { listen: Vec::new(), ..config() };
    assert!(matches!(ApiServer::bind(nothing).await, Err(ApiError::NoListener)));
    let udp = RestConfig { listen: vec!["/ip4/127.0.0.1/udp/1".parse().unwrap()], ..config() };
    assert!(matches!(ApiServer::bind(udp).await, Err(ApiError::UnsupportedAddress { .. })));
    let headers = [("Bad Name".to_owned(), vec!["x".to_owned()])].into();
    assert!(matches!(ApiServer::bind(RestConfig { headers, ..config() }).await, Err(ApiError::InvalidHeader { .. })));
    let taken = World::new(Script::Works).await;
    let twice = RestConfig { listen: taken.server.local_addresses().to_vec(), ..config() };
    assert!(matches!(ApiServer::bind(twice).await, Err(ApiError::Bind { .. })));
}
