//! Uploads that are cut, contradict themselves, or would like to be somewhere else: nothing of them is pinned.

use cluster_core::ports::Block;
use cluster_core::unixfs::car::{write_block, write_header};
use cluster_tests::process::ProcessCluster;
use cluster_types::Cid;

use super::raw::{Answer, ask, cut, request};
use crate::client::inline_cid;

const BOUNDARY: &str = "BB";

/// A part with a file.
fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// Parts as a whole body.
fn body(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

fn upload(query: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n");
    request("POST", &format!("/add?name=hostile&{query}"), &header, body)
}

/// An upload was refused: by its status, or, when the answer had begun, in the trailer.
fn refused(what: &str, answer: &Answer, text: &str) -> Option<String> {
    let by_status = (400..600).contains(&answer.status);
    let is_refused = (by_status || has_stream_error(&answer.text)) && answer.text.contains(text);
    (!is_refused).then(|| format!("{what} must be refused and say {text:?}: {}\n", answer.text))
}

/// Whether a trailer tells of an error; the one of a success is empty.
fn has_stream_error(answer: &str) -> bool {
    answer.lines().filter_map(|line| line.strip_prefix("X-Stream-Error: ")).any(|error| !error.is_empty())
}

/// Wrong parameters, wrong multipart.
pub(super) async fn broken_multipart(cluster: &ProcessCluster) {
    let mut problems = Vec::new();
    let port = cluster.api_port(1);
    let good = body(&[part("a", b"content")]);
    let parameters = [
        ("format=zip", 400, "format parameter is invalid"),
        ("layout=flat", 400, "layout parameter is invalid"),
        ("cid-version=7", 400, "parameter cid-version invalid"),
        ("raw-leaves=perhaps", 400, "parameter raw-leaves invalid"),
        ("stream-channels=2", 400, "parameter stream-channels invalid"),
        ("nocopy=perhaps", 400, "parameter nocopy invalid"),
        ("profile=unixfs-v2", 400, "profile parameter is invalid"),
        ("max-file-links=1", 400, "max-file-links must be between 2 and"),
        ("max-hamt-fanout=100", 400, "max-hamt-fanout must be a power of two"),
        ("replication-min=x", 400, "parameter replication-min invalid"),
        ("expire-in=never", 400, "expire-in cannot be parsed"),
        ("hash=md99", 400, "hash function name not known"),
        ("chunker=size-0", 400, "chunk"),
        ("chunker=size-99999999999", 400, "chunk"),
        ("chunker=junk", 400, "chunk"),
        ("replication=9", 500, "not enough peers to allocate CID"),
    ];
    for (query, status, text) in parameters {
        problems.extend(ask(port, &upload(query, &good)).await.problem(query, status, text));
    }
    let plain = request("POST", "/add", "Content-Type: text/plain\r\n", &good);
    problems.extend(ask(port, &plain).await.problem("text/plain", 400, "multipart"));
    problems.extend(ask(port, &request("POST", "/add", "", &good)).await.problem("no content type", 400, "multipart"));
    let bare = request("POST", "/add", "Content-Type: multipart/form-data\r\n", &good);
    problems.extend(ask(port, &bare).await.problem("no boundary", 400, "multipart"));
    let other = String::from_utf8(good.clone()).unwrap().replace(BOUNDARY, "CC");
    let (file, dots, nul) = (part("a", b"x"), part("a/../../../etc/passwd", b"x"), part("a%00b", b"x"));
    let below = part("a/b", b"x");
    let bodies = [
        ("another boundary", other.into_bytes(), ""),
        ("no parts", body(&[]), "no parts"),
        ("nothing", Vec::new(), "ended before its last boundary"),
        ("no last boundary", file.clone(), "ended before its last boundary"),
        ("a way out", body(std::slice::from_ref(&dots)), "leads out of the upload"),
        ("a way out after a file", body(&[file.clone(), dots]), "leads out of the upload"),
        ("a NUL", body(&[nul]), "leads out of the upload"),
        ("a long name", body(&[part(&"n".repeat(5_000), b"x")]), "too long"),
        ("a long header", body(&[part(&"n".repeat(50_000), b"x")]), "too long"),
        ("a file that is a folder", body(&[part("d/a", b"x"), part("d/a/b", b"x")]), ""),
        ("a folder that is a file", body(&[part("d/a/b", b"x"), part("d/a", b"x")]), ""),
        ("a part without a head", body(&[b"--BB\r\nno colon\r\n\r\nx\r\n".to_vec()]), "no colon"),
        ("two bodies in one", body(&[file.clone(), b"--BBx\r\n\r\n".to_vec(), below]), ""),
    ];
    for (what, body, text) in bodies {
        for query in ["stream-channels=true", "stream-channels=false", "wrap-with-directory=true"] {
            problems.extend(refused(what, &ask(port, &upload(query, &body)).await, text));
        }
    }
    // A client that goes away before the last byte, early and late, in a small upload and in one with blocks.
    for content in [7, 3_000_000] {
        let whole = upload("", &body(&[part("a", &vec![b'z'; content])]));
        for missing in [1, 12, content] {
            let answer = cut(port, &whole[..whole.len() - missing]).await;
            let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n0\r\n\r\n");
            assert!(!is_whole || has_stream_error(&answer), "told as a success: {answer}");
        }
    }
    assert!(problems.is_empty(), "{}", problems.concat());
}

/// Archives that are none, are cut, or lie.
pub(super) async fn hostile_archives(cluster: &ProcessCluster) {
    let mut problems = Vec::new();
    let port = cluster.api_port(1);
    let root: Cid = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e".parse().unwrap();
    let block = |data: &'static [u8]| write_block(&Block { cid: root, data: data.into() });
    let header = write_header(&[root]);
    let lie = [header.as_ref(), block(b"this is not the block").as_ref()].concat();
    let cut_block = &lie[..lie.len() - 5];
    let two = write_header(&[root, inline_cid(1)]);
    let none = write_header(&[]);
    // Lengths of 2^62 bytes, and one that never ends.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    let huge_section = [header.as_ref(), huge.as_slice(), b"data"].concat();
    let long_header = [[0xff, 0xff, 0x7f].as_slice(), &[0xa2; 4_000]].concat();
    let noise: Vec<u8> = (0..300_000).map(|_| rand::random()).collect();
    // An array of 2^32 roots in a header of 20 bytes.
    let many = [[20].as_slice(), &[0xa2, 0x65], b"roots", &[0x9a, 0xff, 0xff, 0xff, 0xff], &[0; 8]].concat();
    let archives: [(&str, &[u8]); 11] = [
        ("nothing", b""),
        ("half a header", &header[..header.len() / 2]),
        ("a block that is not what its CID says", &lie),
        ("a cut block", cut_block),
        ("two roots", &two),
        ("no root", &none),
        ("a huge header", &huge),
        ("a huge section", &huge_section),
        ("a long header", &long_header),
        ("noise", &noise),
        ("a promise of many roots", &many),
    ];
    for (what, archive) in archives {
        for query in ["format=car", "format=car&stream-channels=false"] {
            problems.extend(refused(what, &ask(port, &upload(query, &body(&[part("x.car", archive)]))).await, "CAR"));
        }
    }
    let wrapped = upload("format=car&wrap-with-directory=true", &body(&[part("x.car", &header)]));
    problems.extend(refused("a wrapped archive", &ask(port, &wrapped).await, "cannot wrap a CAR file upload"));
    assert!(problems.is_empty(), "{}", problems.concat());
}
