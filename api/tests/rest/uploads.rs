//! Uploads over a socket: large ones, broken ones, clients that leave.

use cluster_api::RestConfig;
use tokio::io::AsyncWriteExt;

use crate::fake::Script;
use crate::harness::{World, config, read_all, request, status};

const HEAD: &str = "POST /add HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
    Content-Type: multipart/form-data; boundary=B\r\n\r\n";
const PART: &str = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big\"\r\n\r\n";

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

#[tokio::test]
async fn a_large_upload_passes_through() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    let megabyte = vec![b'\r'; 1 << 20];
    for _ in 0..16 {
        socket.write_all(&chunk(&megabyte)).await.unwrap();
    }
    socket.write_all(&chunk(b"\r\n--B--\r\n")).await.unwrap();
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_all(&mut socket).await;
    assert!(answer.contains(&format!("\"size\":{}", 16 << 20)), "{answer}");
    assert_eq!(world.cluster.calls().last().unwrap(), "pinned");
}

#[tokio::test]
async fn an_upload_above_its_limit_is_refused_and_pins_nothing() {
    let limited = RestConfig { max_upload_bytes: Some(1 << 20), ..config() };
    let world = World::with(limited, Script::Works).await;
    let headers = "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 99999999\r\n";
    let announced = world.raw(&request("POST", "/add", headers, b"")).await;
    assert!(status(&announced) == 413 && announced.contains("more than 1048576 bytes"), "{announced}");
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    // The last write may meet a closed door.
    let _ = socket.write_all(&chunk(&vec![b'x'; 2 << 20])).await;
    let cut = read_all(&mut socket).await;
    assert_eq!(status(&cut), 413, "{cut}");
    world.cluster.saw("aborted: ").await;
    assert!(!world.cluster.calls().contains(&"pinned".to_owned()));
}

#[tokio::test]
async fn an_upload_whose_client_leaves_is_aborted_and_pins_nothing() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    socket.write_all(&chunk(b"some data")).await.unwrap();
    world.cluster.saw("first data of big").await;
    drop(socket);
    world.cluster.saw("aborted: the upload broke off").await;
    assert!(!world.cluster.calls().contains(&"pinned".to_owned()));
}

#[tokio::test]
async fn an_upload_without_its_last_boundary_is_400_and_pins_nothing() {
    let world = World::new(Script::Works).await;
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    socket.write_all(&chunk(b"some data\r\n--B")).await.unwrap();
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert!(answer.contains("the upload broke off"), "{answer}");
    assert!(!world.cluster.calls().contains(&"pinned".to_owned()));
}

#[tokio::test]
async fn names_that_lead_out_of_the_upload_are_400_and_pin_nothing() {
    let world = World::new(Script::Works).await;
    let part = PART.replace("big", "..%2F..%2Fetc");
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(part.as_bytes())).await.unwrap();
    socket.write_all(&chunk(b"x\r\n--B--")).await.unwrap();
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut socket).await), 400);
    assert!(!world.cluster.calls().contains(&"pinned".to_owned()));
}

#[tokio::test]
async fn an_answer_arrives_although_the_upload_goes_on() {
    let world = World::new(Script::named("unavailable")).await;
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), 503, "{answer}");
}

#[tokio::test]
async fn the_client_of_an_upload_that_failed_can_send_all_of_it_before_it_reads() {
    let world = World::new(Script::named("unavailable")).await;
    let mut socket = world.connect().await;
    socket.write_all(HEAD.as_bytes()).await.unwrap();
    socket.write_all(&chunk(PART.as_bytes())).await.unwrap();
    let piece = chunk(&vec![b'x'; 1024 * 1024]);
    for _ in 0..40 {
        socket.write_all(&piece).await.expect("it is still read");
    }
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), 503, "{answer}");
}

#[tokio::test]
async fn a_refused_upload_is_read_far_enough_for_its_client_to_see_why() {
    let world = World::new(Script::Works).await;
    let body = vec![b'x'; 900 * 1024];
    let answer = world.raw(&request("POST", "/add?format=zip", "", &body)).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}
