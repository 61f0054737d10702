//! What is passed on: bodies of any size and content, trailers, breaks; and what is kept of the node's headers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::World;
use super::node::{LARGE, LIKE_AN_END};
use crate::fake::{CID, Script};
use crate::harness::{read_until, request, status};

#[tokio::test]
async fn a_large_answer_comes_through_byte_by_byte() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    socket.write_all(&request("POST", "/api/v0/cat?arg=large", "", b"")).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - head, LARGE);
    let expected = LIKE_AN_END.iter().cycle();
    assert!(answer[head..].iter().zip(expected).all(|(byte, expected)| byte == expected));
}

#[tokio::test]
async fn trailers_are_put_at_the_end_whatever_the_body_looks_like() {
    let world = World::new(Script::Works).await;
    let answer = world.raw(&request("POST", "/api/v0/cat?arg=like-an-end", "", b"")).await;
    let body = String::from_utf8(LIKE_AN_END.repeat(3)).unwrap();
    let end = format!("15\r\n{body}\r\n0\r\nX-Stream-Error: a block is missing\r\n\r\n");
    assert!(answer.ends_with(&end), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_at_the_node_never_looks_whole() {
    let world = World::new(Script::Works).await;
    let answer = world.raw(&request("POST", "/api/v0/cat?arg=broken", "", b"")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.ends_with("0\r\n\r\n"), "{answer:?}");
}

#[tokio::test]
async fn a_request_goes_through_as_it_comes_without_what_concerns_its_connection() {
    let world = World::new(Script::Works).await;
    let headers = "Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nTE: gzip\r\nHost: there\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = format!("POST /api/v0/files/write HTTP/1.1\r\n{headers}");
    let answer = world.raw(format!("{head}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    let seen = world.node.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let expected = "POST /api/v0/files/write te=trailers host=there x-end=2, ";
    assert!(seen[0].starts_with(expected), "{seen:?}");
}

#[tokio::test]
async fn an_upload_that_the_client_gives_up_ends_at_the_node() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    let head = "POST /api/v0/files/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    drop(socket);
    world.node.saw("a body broke off").await;
    assert_eq!(world.node.seen(), ["a body broke off"]);
}

#[tokio::test]
async fn a_question_is_taken_back_when_nobody_waits_for_its_answer() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    socket.write_all(&request("POST", "/api/v0/cat?arg=hangs", "", b"")).await.unwrap();
    world.node.saw("POST /api/v0/cat").await;
    drop(socket);
    world.node.saw("who asked went away").await;
}

#[tokio::test]
async fn headers_of_the_node_are_kept_for_a_while() {
    let world = World::new(Script::Works).await;
    let target = format!("/api/v0/pin/add?arg={CID}");
    for _ in 0..3 {
        let answer = world.raw(&request("POST", &target, "", b"")).await;
        assert!(answer.contains("X-Of-Node: yes\r\n"), "{answer}");
    }
    let versions =
        |world: &World| world.node.seen().iter().filter(|call| call.starts_with("POST /api/v0/version")).count();
    assert_eq!(versions(&world), 1);
    let forgetful = World::with(Script::Works, |config| config.extract_headers_ttl = Duration::from_nanos(1)).await;
    for _ in 0..3 {
        forgetful.raw(&request("POST", &target, "", b"")).await;
    }
    assert_eq!(versions(&forgetful), 3);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::new(Script::Works).await;
    let headers = format!("X-Long: {}\r\n", "x".repeat(9_000));
    let answer = world.raw(&request("POST", "/api/v0/id", &headers, b"")).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert!(world.node.seen().is_empty());
}

#[tokio::test]
async fn a_write_whose_client_goes_away_is_carried_out() {
    let world = World::new(Script::Waits).await;
    let mut socket = world.connect().await;
    socket.write_all(&request("POST", &format!("/api/v0/pin/rm?arg={CID}"), "", b"")).await.unwrap();
    world.cluster.saw("unpin_path").await;
    drop(socket);
    world.cluster.go_on.notify_one();
    world.cluster.saw("went on").await;
    assert!(world.server.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn an_add_is_answered_while_it_is_sent() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    let head = "POST /api/v0/add HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 999999\r\n\r\n";
    let part = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhello";
    socket.write_all(format!("{head}{part}").as_bytes()).await.unwrap();
    world.cluster.saw("first data of f").await;
    socket.shutdown().await.unwrap();
    let answer = read_until(&mut socket, "Code").await;
    assert!(answer.contains("the upload broke off"), "{answer}");
    assert!(world.cluster.calls().iter().any(|call| call.starts_with("aborted")));
}
