//! What an upload looks like on the wire.

use std::path::PathBuf;

use cluster_client::{AddRequest, ClientError, Source};
use cluster_types::AddParams;
use futures::StreamExt;

use crate::server::{Server, client_of, nobody};

const ADDED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 68\r\n\r\n\
    {\"name\":\"t\",\"cid\":\"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH\"}\n";
/// Larger than one piece.
const LARGE: usize = 1024 * 1024 + 1;

/// A fresh folder with a tree in it.
fn tree(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&root));
    std::fs::create_dir_all(root.join("b/empty")).unwrap();
    std::fs::write(root.join("a b.txt"), "first").unwrap();
    std::fs::write(root.join("b/large"), vec![b'x'; LARGE]).unwrap();
    std::fs::write(root.join(".hidden"), "secret").unwrap();
    std::os::unix::fs::symlink("../a b.txt", root.join("b/link")).unwrap();
    root
}

fn request(path: PathBuf) -> AddRequest {
    let sources = vec![Source::Path { path, name: "t".to_owned() }];
    AddRequest { params: AddParams::default(), sources, recursive: true, hidden: false, nocopy: false }
}

/// The parts of a body: name, type and length.
fn parts(headers: &[String], body: &[u8]) -> Vec<(String, String, usize)> {
    let boundary = headers.iter().find_map(|header| header.split_once("boundary=")).unwrap().1;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let text = text.strip_suffix(&format!("--{boundary}--\r\n")).unwrap();
    let start = format!("--{boundary}\r\n");
    let parts = text.split(start.as_str()).skip(1);
    let read = parts.map(|part| {
        let (head, data) = part.split_once("\r\n\r\n").unwrap();
        let value = |key: &str| head.split_once(key).unwrap().1.split(['"', '\r']).next().unwrap().to_owned();
        (value("filename=\""), value("Content-Type: "), data.strip_suffix("\r\n").unwrap().len())
    });
    read.collect()
}

const FOLDER: &str = "application/x-directory";
const FILE: &str = "application/octet-stream";
const LINK: &str = "application/symlink";

#[tokio::test]
async fn a_tree_is_streamed_in_parts_each_folder_before_its_files() {
    let server = Server::start(&[ADDED]);
    let mut items = server.client().add(request(tree("streamed"))).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap().name, "t");
    assert!(items.next().await.is_none());
    let received = server.request();
    assert!(received.line.starts_with("POST /add?"), "{}", received.line);
    for flag in ["chunker=size-262144", "stream-channels=true", "recursive=true", "cid-version=0", "nocopy=false"] {
        assert!(received.line.contains(flag), "{flag} in {}", received.line);
    }
    let expected = [
        ("t", FOLDER, 0),
        ("t%2Fa%20b%2Etxt", FILE, 5),
        ("t%2Fb", FOLDER, 0),
        ("t%2Fb%2Fempty", FOLDER, 0),
        ("t%2Fb%2Flarge", FILE, LARGE),
        ("t%2Fb%2Flink", LINK, 10),
    ];
    let expected: Vec<_> = expected.map(|(name, kind, length)| (name.to_owned(), kind.to_owned(), length)).to_vec();
    assert_eq!(parts(&received.headers, &received.body), expected);
    // The large file came in pieces: it was never held as a whole.
    assert!(received.chunks.iter().all(|size| *size <= 512 * 1024), "{:?}", received.chunks);
}

#[tokio::test]
async fn hidden_files_are_uploaded_when_asked_for() {
    let server = Server::start(&[ADDED]);
    let request = AddRequest { hidden: true, ..request(tree("hidden")) };
    drop(server.client().add(request).await.unwrap());
    let received = server.request();
    let names: Vec<String> = parts(&received.headers, &received.body).into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"t%2F%2Ehidden".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_folder_without_the_flag_is_refused_before_anything_is_sent() {
    let request = AddRequest { recursive: false, ..request(tree("refused")) };
    // Nobody listens: had anything been sent, the error would speak of the connection.
    let error = client_of(vec![nobody()]).add(request).await.err().unwrap();
    assert!(matches!(error, ClientError::Local { .. }), "{error:?}");
    assert!(error.to_string().ends_with("is a directory, but Recursive option is not set"), "{error}");
}

#[tokio::test]
async fn an_upload_goes_to_the_next_endpoint_as_a_whole() {
    let server = Server::start(&[ADDED]);
    let client = client_of(vec![nobody(), server.address()]);
    drop(client.add(request(tree("elsewhere"))).await.unwrap());
    let received = server.request();
    assert!(received.is_complete);
    assert_eq!(parts(&received.headers, &received.body).len(), 6);
}

#[tokio::test]
async fn what_cannot_be_read_while_uploading_ends_the_upload_with_its_reason() {
    let server = Server::start(&[ADDED]);
    let port = nobody().to_string().rsplit('/').next().unwrap().to_owned();
    let url = format!("http://127.0.0.1:{port}/x").parse().unwrap();
    let mut request = request(tree("broken"));
    request.sources.push(Source::Url { url, name: "x".to_owned() });
    let error = server.client().add(request).await.err().unwrap();
    assert!(error.to_string().starts_with("fetching http://127.0.0.1:"), "{error}");
    assert!(!server.request().is_complete);
}

#[tokio::test]
async fn what_a_url_leads_to_becomes_a_part() {
    let source = Server::start(&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"]);
    let server = Server::start(&[ADDED]);
    let port = source.address().to_string().rsplit('/').next().unwrap().to_owned();
    let url = format!("http://127.0.0.1:{port}/x.iso").parse().unwrap();
    let mut request = request(PathBuf::new());
    request.sources = vec![Source::Url { url, name: "x.iso".to_owned() }];
    drop(server.client().add(request).await.unwrap());
    let received = server.request();
    assert_eq!(parts(&received.headers, &received.body), [("x%2Eiso".to_owned(), FILE.to_owned(), 4)]);
}
