//! What comes from outside is refused, bounded, and has no effect.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{CID, Script};
use crate::harness::{World, config, read_all, read_until, request, status};

#[tokio::test]
async fn malformed_requests_get_4xx_and_reach_nobody() {
    let long = "x".repeat(600);
    let targets = [
        "POST /pins/%00".to_owned(),
        "POST /pins/%ff".to_owned(),
        "POST /pins/%".to_owned(),
        format!("POST /pins/{long}"),
        format!("POST /pins/{CID}%2e"),
        format!("POST /pins/{CID}?name=%ff"),
        format!("POST /pins/{CID}?meta-%ff=x"),
        format!("POST /pins/{CID}?replication=99999999999999999999"),
        format!("POST /pins/{CID}?expire-in=99999999999h"),
        format!("POST /pins/{CID}?expire-at=2026-13-45T00:00:00Z"),
        format!("POST /pins/{CID}?pin-update={long}"),
        format!("POST /pins/{CID}?origins=/ip4/1.2.3.4/tcp/4001"),
        format!("POST /pins/{CID}?shard-size=-5"),
        "POST /pins/ipld/..%2f..%2fx".to_owned(),
        "POST /pins/ipns".to_owned(),
        "DELETE /pins/ipfs/junk".to_owned(),
        "POST /pins/junk/recover".to_owned(),
        "GET /allocations?filter=%00".to_owned(),
        "GET /pins?filter=undefined".to_owned(),
        format!("GET /pins?cids={CID},,"),
        format!("DELETE /peers/{long}"),
        "DELETE /peers/..".to_owned(),
        "POST /add?progress=perhaps".to_owned(),
        "POST /add?nocopy=true".to_owned(),
        "POST /add".to_owned(),
        "CONNECT peer:80".to_owned(),
        "TRACE /id".to_owned(),
    ];
    let world = World::new(Script::Works).await;
    for target in targets {
        let (method, target) = target.split_once(' ').unwrap();
        let answer = world.ask(method, target).await;
        let code = status(&answer);
        assert!((400..500).contains(&code) || code == 301, "{method} {target}: {answer}");
        assert_eq!(world.cluster.calls(), Vec::<String>::new(), "{method} {target}");
    }
}

#[tokio::test]
async fn what_is_not_http_gets_no_further_than_the_engine() {
    let world = World::new(Script::Works).await;
    let inputs: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /id HTTP/9.9\r\n\r\n",
        b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /peers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ];
    for input in inputs {
        let answer = world.raw(input).await;
        assert!(answer.is_empty() || (400..500).contains(&status(&answer)), "{answer}");
    }
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn heads_above_the_limit_get_431() {
    let world = World::new(Script::Works).await;
    let fits = format!("X-Long: {}\r\n", "x".repeat(7_000));
    assert_eq!(status(&world.raw(&request("GET", "/id", &fits, b"")).await), 200);
    let long = format!("X-Long: {}\r\n", "x".repeat(9_000));
    assert_eq!(status(&world.raw(&request("GET", "/id", &long, b"")).await), 431);
    let many = "X: y\r\n".repeat(900);
    assert_eq!(status(&world.raw(&request("GET", "/id", &many, b"")).await), 200);
    let too_many = "X: y\r\n".repeat(1_400);
    assert_eq!(status(&world.raw(&request("GET", "/id", &too_many, b"")).await), 431);
    assert_eq!(world.cluster.calls(), ["id", "id"]);
}

#[tokio::test]
async fn json_bodies_above_the_limit_are_refused_unread() {
    let world = World::new(Script::Works).await;
    let body = vec![b' '; 70_000];
    assert_eq!(status(&world.raw(&request("POST", "/peers", "", &body)).await), 413);
    let endless = b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{";
    let mut socket = world.connect().await;
    socket.write_all(endless).await.unwrap();
    for _ in 0..10_000 {
        if socket.write_all(&[b' '; 1024]).await.is_err() {
            break;
        }
    }
    drop(socket);
    let deep = "[".repeat(60_000);
    assert_eq!(status(&world.raw(&request("POST", "/peers", "", deep.as_bytes())).await), 400);
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let brief = std::time::Duration::from_millis(50);
    let config = cluster_api::RestConfig { read_header_timeout: Some(brief), idle_timeout: Some(brief), ..config() };
    let world = World::with(config, Script::Works).await;
    let mut half = world.connect().await;
    half.write_all(b"POST /pins/recover HTTP/1.1\r\nHost:").await.unwrap();
    assert_eq!(read_all(&mut half).await, "");
    let mut silent = world.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    let mut body = world.connect().await;
    body.write_all(b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{").await.unwrap();
    assert_eq!(status(&read_all(&mut body).await), 408);
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_that_trickles_in_has_its_time_as_a_whole() {
    let limit = std::time::Duration::from_millis(200);
    let world = World::with(cluster_api::RestConfig { read_timeout: Some(limit), ..config() }, Script::Works).await;
    let (mut reading, mut writing) = world.connect().await.into_split();
    writing.write_all(b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n").await.unwrap();
    let trickle = async {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(limit / 20).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = trickle => {}
        answer = read_until(&mut reading, "\r\n\r\n") => assert_eq!(status(&answer), 408, "{answer}"),
    }
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_is_late_is_not_given_but_its_write_goes_on() {
    let limit = std::time::Duration::from_millis(100);
    let world = World::with(cluster_api::RestConfig { write_timeout: Some(limit), ..config() }, Script::Waits).await;
    assert_eq!(status(&world.ask("GET", "/id").await), 200);
    let mut socket = world.connect().await;
    socket.write_all(&request("DELETE", &format!("/pins/{CID}"), "", b"")).await.unwrap();
    world.cluster.saw("unpin ").await;
    tokio::time::sleep(limit * 2).await; // The answer must be later than its limit.
    world.cluster.go_on.notify_one();
    assert_eq!(read_all(&mut socket).await, "");
    world.cluster.saw("went on").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_with_their_trailers() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    let both = "GET /allocations HTTP/1.1\r\nHost: localhost\r\n\r\nGET /version HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(both.as_bytes()).await.unwrap();
    let seen = read_until(&mut socket, "\"version\"").await;
    let (first, second) = seen.split_at(seen.rfind("HTTP/1.1 200").unwrap());
    assert!(first.ends_with("\r\n0\r\nX-Stream-Error: \r\n\r\n"), "{first}");
    assert_eq!(status(second), 200);
    // The connection is kept.
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut socket, "\r\n\r\n").await), 204);
}

#[tokio::test]
async fn old_clients_get_listings_without_chunks() {
    let world = World::new(Script::Works).await;
    let answer = world.raw(b"GET /allocations HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("chunked"), "{head}");
    assert_eq!(body.lines().count(), 2);
    assert!(body.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{body}");
}

#[tokio::test]
async fn old_clients_see_a_break_where_others_read_an_error() {
    let world = World::new(Script::FailsLate).await;
    let mut socket = world.connect().await;
    socket.write_all(b"GET /allocations HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let end = socket.read_to_end(&mut answer).await;
    assert!(end.is_err(), "{end:?} after {}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_archive_that_is_not_whole_ends_with_a_break_and_no_trailer() {
    let world = World::new(Script::FailsLate).await;
    let mut socket = world.connect().await;
    let archive = format!("GET /pins/{CID}/car HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(archive.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was on its way may go with the break.
    let end = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        end.is_err() && !answer.contains("X-Stream-Error") && !answer.ends_with("\r\n0\r\n\r\n"),
        "{end:?} {answer}"
    );
}

#[tokio::test]
async fn the_version_is_the_one_of_the_api_with_that_of_the_program_behind() {
    let answer = World::new(Script::Works).await.ask("GET", "/version").await;
    let expected = format!("\r\n\r\n{{\"version\":\"1.1.6+ipfs-cluster-rs.{}\"}}\n", cluster_types::VERSION);
    assert!(answer.ends_with(&expected), "{answer}");
}
