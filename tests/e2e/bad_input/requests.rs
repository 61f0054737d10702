//! Requests that are wrong in all their parts.

use cluster_tests::process::ProcessCluster;

use super::Before;
use super::raw::{ask, cut, request};
use crate::client::inline_cid;

/// CIDs, paths, pin options and filters.
pub(super) async fn wrong_targets(cluster: &ProcessCluster, before: &Before) {
    let mut problems = Vec::new();
    let (pinned, unknown, long) = (before.pinned, inline_cid(99), "x".repeat(600));
    let by_method = [
        ("POST /pins/junk".to_owned(), 400, "error decoding Cid: "),
        ("POST /pins/Qm".to_owned(), 400, "error decoding Cid: "),
        (format!("POST /pins/{long}"), 400, "error decoding Cid: "),
        (format!("POST /pins/{pinned}x"), 400, "error decoding Cid: "),
        (format!("POST /pins/{pinned}%2e"), 400, "error decoding Cid: "),
        ("POST /pins/%00".to_owned(), 400, "error decoding Cid: "),
        ("POST /pins/%ff".to_owned(), 400, "not UTF-8"),
        ("POST /pins/%zz".to_owned(), 400, "invalid URL escape"),
        ("DELETE /pins/junk".to_owned(), 400, "error decoding Cid: "),
        ("GET /pins/junk".to_owned(), 400, "error decoding Cid: "),
        ("GET /allocations/junk".to_owned(), 400, "error decoding Cid: "),
        ("POST /pins/junk/recover".to_owned(), 400, "error decoding Cid: "),
        (format!("GET /pins?cids={pinned},junk"), 400, "error decoding Cid: "),
        (format!("GET /allocations/{unknown}"), 404, "pin is not part of the pinset"),
        ("POST /pins/ipfs/junk".to_owned(), 400, "error parsing path: "),
        ("POST /pins/ipfs/junk/a/b".to_owned(), 400, "error parsing path: "),
        ("DELETE /pins/ipld/junk".to_owned(), 400, "error parsing path: "),
        ("POST /pins/ipns".to_owned(), 400, "error decoding Cid: "),
        (format!("POST /pins/other/{pinned}"), 404, "not found"),
        (format!("POST //pins/{pinned}?name=moved"), 301, "Location: /pins/"),
        (format!("POST /pins/../pins/{pinned}?name=moved"), 301, "Location: /pins/"),
        ("GET /nowhere".to_owned(), 404, "not found"),
        (format!("PUT /pins/{pinned}"), 405, "Allow: GET, POST, DELETE"),
        ("GET /add".to_owned(), 405, "Allow: POST"),
        ("DELETE /peers/junk".to_owned(), 400, "error decoding Peer ID: "),
        ("GET /pins?filter=junk".to_owned(), 400, "invalid filter value"),
        ("GET /pins?filter=undefined".to_owned(), 400, "invalid filter value"),
        ("GET /allocations?filter=junk".to_owned(), 400, "invalid filter value"),
        ("GET /allocations?filter=%00".to_owned(), 400, "invalid filter value"),
        ("GET /allocations?consistency=some".to_owned(), 400, "consistency must be local or linearizable"),
    ];
    for (line, status, text) in by_method {
        let (method, target) = line.split_once(' ').unwrap();
        problems.extend(ask(cluster.api_port(1), &request(method, target, "", b"")).await.problem(&line, status, text));
    }
    // An option that is wrong ends the request, on a pin that exists and on one that does not, by CID and by path.
    for (option, status, text) in options() {
        for target in [format!("/pins/{pinned}"), format!("/pins/{unknown}"), format!("/pins/ipfs/{pinned}")] {
            let target = format!("{target}?name=changed&{option}");
            problems.extend(
                ask(cluster.api_port(1), &request("POST", &target, "", b"")).await.problem(&target, status, text),
            );
        }
    }
    assert!(problems.is_empty(), "{}", problems.concat());
}

/// Pin options that cannot be, each with what is said about it.
fn options() -> [(&'static str, u16, &'static str); 22] {
    [
        ("replication=x", 400, "parameter replication invalid"),
        ("replication-min=1.5", 400, "parameter replication-min invalid"),
        ("replication-max=99999999999", 400, "parameter replication-max invalid"),
        ("shard-size=-1", 400, "parameter shard_size is invalid"),
        ("shard-size=18446744073709551616", 400, "parameter shard_size is invalid"),
        ("expire-at=tomorrow", 400, "expire-at cannot be parsed"),
        ("expire-at=2026-13-45T00:00:00Z", 400, "expire-at cannot be parsed"),
        ("expire-in=never", 400, "expire-in cannot be parsed"),
        ("expire-in=300ms", 400, "expire-in duration too short"),
        ("expire-in=-1h", 400, "expire-in duration too short"),
        ("expire-in=99999999999h", 400, "expire-in cannot be parsed"),
        ("pin-update=junk", 400, "error decoding update option parameter: "),
        ("origins=junk", 400, "error decoding origins parameter: "),
        ("origins=/ip4/1.2.3.4/tcp/4001", 400, "multiaddress does not contain peer ID: "),
        ("meta-%ff=x", 400, "UTF-8"),
        ("meta-a=%zz", 400, "invalid URL escape in the query"),
        ("expire-in=1h;meta-a=b", 400, "a semicolon in the query"),
        // What only the cluster can judge is a 500, as in the original.
        ("expire-at=2001-01-01T00:00:00Z", 500, "pin.ExpireAt set before current time"),
        ("replication-min=3&replication-max=1", 500, "larger than max"),
        ("replication-min=-1&replication-max=2", 500, "must be -1 when one of them is"),
        ("replication=-7", 500, "is wrong"),
        ("replication=9", 500, "not enough peers to allocate CID"),
    ]
}

/// Writes that only their place in the log can judge: they take an entry, and change nothing.
pub(super) async fn refused_in_order(cluster: &ProcessCluster, before: &Before) {
    let (pinned, unknown) = (before.pinned, inline_cid(99));
    let lines = [
        (format!("DELETE /pins/{unknown}"), 404, "pin is not part of the pinset"),
        (format!("DELETE /pins/ipfs/{unknown}"), 404, "pin is not part of the pinset"),
        (format!("POST /pins/{unknown}?pin-update={unknown}1"), 400, "error decoding update option parameter: "),
        (format!("POST /pins/{unknown}?pin-update={}", inline_cid(98)), 404, "pin is not part of the pinset"),
        (format!("POST /pins/{pinned}?mode=direct"), 500, "already pinned in recursive mode"),
    ];
    let mut problems = Vec::new();
    for (line, status, text) in lines {
        let (method, target) = line.split_once(' ').unwrap();
        problems.extend(ask(cluster.api_port(2), &request(method, target, "", b"")).await.problem(&line, status, text));
    }
    assert!(problems.is_empty(), "{}", problems.concat());
}

/// JSON that is none, bodies and heads that are too large.
pub(super) async fn wrong_bodies(cluster: &ProcessCluster) {
    let mut problems = Vec::new();
    let port = cluster.api_port(2);
    let deep = "[".repeat(60_000);
    let list = format!("[\"{}\"]", cluster.peers[0].id());
    let bodies: [(&[u8], &str); 9] = [
        (list.as_bytes(), "error decoding request body"),
        (b"", "error decoding request body"),
        (b"{", "error decoding request body"),
        (b"[]", "error decoding request body"),
        (b"\xff\xfe\x00", "error decoding request body"),
        (deep.as_bytes(), "error decoding request body"),
        (b"{\"peer_id\":5}", "error decoding request body"),
        (b"{\"peer_id\":\"junk\"}", "error decoding peer_id"),
        (b"{}", "error decoding peer_id"),
    ];
    for (body, text) in bodies {
        let name = format!("POST /peers {}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        problems.extend(ask(port, &request("POST", "/peers", "", body)).await.problem(&name, 400, text));
    }
    let large = vec![b' '; 70_000];
    problems.extend(ask(port, &request("POST", "/peers", "", &large)).await.problem(
        "a large body",
        413,
        "65536 bytes",
    ));
    let header = format!("X-Long: {}\r\n", "x".repeat(9_000));
    problems.extend(ask(port, &request("POST", &format!("/pins/{}", inline_cid(5)), &header, b"")).await.problem(
        "a long header",
        431,
        "",
    ));
    let many = "X: y\r\n".repeat(2_000);
    problems.extend(ask(port, &request("POST", &format!("/pins/{}", inline_cid(5)), &many, b"")).await.problem(
        "many headers",
        431,
        "",
    ));
    let long = format!("/pins/{}?name={}", inline_cid(5), "n".repeat(20_000));
    let refused = ask(port, &request("POST", &long, "", b"")).await;
    assert!(matches!(refused.status, 414 | 431), "{refused:?}");
    assert!(problems.is_empty(), "{}", problems.concat());
}

/// Halves of requests, and what never was one.
pub(super) async fn what_is_not_http(cluster: &ProcessCluster, before: &Before) {
    let port = cluster.api_port(0);
    let whole = request("DELETE", &format!("/pins/{}", before.pinned), "", b"");
    // Before the empty line that ends a head, a request is none.
    for length in [1, whole.len() / 2, whole.len() - 1] {
        let answer = cut(port, &whole[..length]).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let noise: Vec<u8> = (0..20_000).map(|_| rand::random()).collect();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let smuggled = b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}";
    let negative = b"POST /peers HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}";
    let chunks =
        b"POST /peers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n";
    for bytes in [&noise, tls.as_slice(), b"GET\r\n\r\n", b"\0\0\0\0", smuggled, negative, chunks] {
        let answer = cut(port, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Those that say nothing more, and stay, are sent away after the time for a head.
    let silent = (0..20).map(|_| ask(port, &whole[..whole.len() / 2]));
    for answer in futures::future::join_all(silent).await {
        assert!(matches!(answer.status, 0 | 408), "{answer:?}");
    }
}
