//! Every command and flag as scripts see them: one file each in `tests/golden`, in text and in JSON, against a peer whose
//! answers are those of the original (`tests/answers`). `tests/surface.txt` lists what there has to be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use cluster_terminal::checks::golden::{Golden, compare, goldens, missing};

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
const OTHER: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const NODE: &str = "QmXZXGXXXNo1Xmgq2BxeSveaWfcytVD1Y9z5L2iSrHqGdV";

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The whole answer for `<status> <name of a file in tests/answers>`.
fn answer(text: &str) -> String {
    let (status, name) = text.split_once(' ').unwrap_or((text, ""));
    let body = if name.is_empty() {
        String::new()
    } else {
        std::fs::read_to_string(tests().join("answers").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let length = body.len();
    format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads a request to its end; what was asked.
fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut text = String::new();
        drop(reader.read_line(&mut text));
        text.trim_end().to_owned()
    };
    let asked = line();
    let mut head = Vec::new();
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        head.push(header.to_lowercase());
    }
    if head.iter().any(|header| header == "transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            drop(reader.read_line(&mut size));
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            // Each chunk ends with a line end.
            drop(reader.read_exact(&mut vec![0; size + 2]));
            if size == 0 {
                break;
            }
        }
    }
    let asked = asked.strip_suffix(" HTTP/1.1").unwrap_or(&asked).to_owned();
    let credentials = head.iter().find(|header| header.starts_with("authorization: "));
    credentials.map_or(asked.clone(), |credentials| format!("{asked} ({credentials})"))
}

/// Gives `answers`, one per connection, and tells what was asked.
fn serve(answers: Vec<String>) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            drop(sender.send(request(&stream)));
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (port, asked)
}

/// Times that are counted from now say nothing.
fn timeless(asked: &str) -> String {
    let Some((before, rest)) = asked.split_once("expire-at=") else { return asked.to_owned() };
    let end = rest.find(['&', ' ']).unwrap_or(rest.len());
    format!("{before}expire-at=TIME{}", rest.get(end..).unwrap_or_default())
}

fn see(golden: &Golden) -> String {
    let place = tempfile::tempdir().expect("the system has temporary folders");
    let (port, asked) = serve(golden.all("answer").into_iter().map(answer).collect());
    let host = format!("/ip4/127.0.0.1/tcp/{port}");
    let names = [
        (host.clone(), "$HOST"),
        (format!("127.0.0.1:{port}"), "$ADDRESS"),
        (place.path().display().to_string(), "$DIR"),
        (env!("CARGO_PKG_VERSION").to_owned(), "$VERSION"),
        (CID.to_owned(), "$CID"),
        (OTHER.to_owned(), "$OTHER"),
        (PEER.to_owned(), "$PEER"),
        (NODE.to_owned(), "$NODE"),
    ];
    let names_host = golden.all("run").iter().any(|run| run.contains("$HOST"));
    let before: &[&str] = if names_host { &[] } else { &["--host", &host] };
    let told = golden.run(env!("CARGO_BIN_EXE_ipfs-cluster-ctl"), place.path(), before, &names);
    let asked: String = asked.try_iter().map(|asked| format!("asked: {}\n", timeless(&asked))).collect();
    let asked = names.iter().fold(asked, |text, (long, short)| text.replace(long, short));
    asked + &told
}

#[test]
fn every_command_line_has_the_outcome_of_its_file() {
    compare(&goldens(&tests().join("golden")), see);
}

#[test]
fn every_command_and_flag_has_a_file() {
    let files = goldens(&tests().join("golden"));
    let faults = missing(include_str!("surface.txt"), &files, &["text", "json"]);
    assert!(faults.is_empty(), "no golden file for: {}", faults.join(", "));
}
