//! The program as scripts see it: standard output, standard error and exit code.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

/// Runs the program against a peer that gives `answers`, one per connection.
fn run(arguments: &[&str], answers: Vec<String>) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let host = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().expect("it is bound").port());
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let head = BufReader::new(&stream).lines();
            // The requests here have no body: their head ends with an empty line.
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    let program = env!("CARGO_BIN_EXE_ipfs-cluster-ctl");
    let mut command = Command::new(program);
    command.args(["--host", &host]).args(arguments).env_remove("CLUSTER_CREDENTIALS");
    command.output().expect("the program was just built")
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn status_of(status: &str) -> String {
    format!(
        r#"{{"cid":"{CID}","name":"n","peer_map":{{"p":{{"peername":"peer0","status":"{status}","timestamp":"2026-05-11T08:00:00Z","error":"","attempt_count":0,"priority_pin":false}}}}}}"#
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_error_in_the_trailer_follows_the_items_and_ends_with_2() {
    let item = status_of("pinned") + "\n";
    let stream = format!(
        "HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{item}\r\n0\r\n\
         X-Stream-Error: peer1 is away\r\n\r\n",
        item.len()
    );
    let output = run(&["status"], vec![stream]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "{CID} | n:\n    > peer0                : PINNED | 2026-05-11T08:00:00Z | Attempts: 0 | Priority: false\n\
         An error occurred:\n  Code: 500\n  Message: peer1 is away\n"
    );
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn an_error_answer_is_printed_in_the_chosen_encoding() {
    let gone = answer("404 Not Found", r#"{"code":404,"message":"pin is not part of the pinset"}"#);
    let output = run(&["-enc", "json", "pin", "rm", CID], vec![gone]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "{\n    \"code\": 404,\n    \"message\": \"pin is not part of the pinset\"\n}\n";
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (expected, ""));
}

#[test]
fn a_pin_is_awaited_and_its_status_printed() {
    let pin = answer("200 OK", &format!(r#"{{"cid":"{CID}","replication_factor_min":1}}"#));
    let answers = vec![pin, answer("200 OK", &status_of("pinning")), answer("200 OK", &status_of("pinned"))];
    let output = run(&["pin", "add", CID, "--wait"], answers);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("peer0                : PINNED"));
}

#[test]
fn waiting_too_long_ends_with_62() {
    let pin = answer("200 OK", &format!(r#"{{"cid":"{CID}"}}"#));
    let answers = vec![pin, answer("200 OK", &status_of("pinning"))];
    let output = run(&["pin", "add", "--wait", "-wt", "1500ms", CID], answers);
    assert_eq!(output.status.code(), Some(62), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "error waiting for the status of the pin: the time is over\n");
}

#[test]
fn what_is_wrong_on_this_side_goes_to_the_standard_error() {
    let output = run(&["status", "--filter", "nonsense"], Vec::new());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error parsing the filter: \"nonsense\" names no status\n");
    let unknown = run(&["dance"], Vec::new());
    assert_eq!(unknown.status.code(), Some(3));
    assert_eq!(text(&unknown.stderr), "No help topic for 'dance'\n");
    let wrong = run(&["pin", "add"], Vec::new());
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).starts_with("Incorrect Usage. "));
}

#[test]
fn a_write_without_a_quorum_is_explained_and_marked_for_programs() {
    let pin = |commit: &str| {
        let body = format!(r#"{{"cid":"{CID}","replication_factor_min":1}}"#);
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Cluster-Commit: {commit}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let waiting = run(&["pin", "add", "-ns", CID], vec![pin("eventual")]);
    let kept = run(&["pin", "add", "-ns", CID], vec![pin("3-42")]);
    assert_eq!((waiting.status.code(), kept.status.code()), (Some(0), Some(0)), "{}", text(&waiting.stderr));
    assert_eq!((text(&waiting.stdout), text(&kept.stderr)), (text(&kept.stdout), String::new()));
    let note = text(&waiting.stderr);
    assert!(note.starts_with("note: no quorum answers. ") && note.lines().count() == 1, "{note}");

    let waiting = run(&["--enc=json", "pin", "rm", "-ns", CID], vec![pin("eventual")]);
    assert!(text(&waiting.stdout).ends_with(",\n    \"commit\": \"eventual\"\n}\n"), "{}", text(&waiting.stdout));
    let kept =
        run(&["--enc=json", "pin", "update", CID, CID], vec![pin("3-42"), answer("200 OK", &status_of("pinned"))]);
    assert!(text(&kept.stdout).ends_with("    },\n    \"commit\": \"3-42\"\n}\n"), "{}", text(&kept.stdout));
    assert_eq!((text(&waiting.stderr), text(&kept.stderr)), (String::new(), String::new()));
}

#[test]
fn events_are_asked_for_until_there_are_enough() {
    let event = |place: usize| {
        let party = r#"{"author":"log","wish":"pin","time":"2026-05-11T08:00:00Z","pin":null}"#;
        format!(
            "{{\"cid\":\"{CID}\",\"rule\":\"newer-pin\",\"stale\":false,\"time\":\"2026-05-11T08:00:00Z\",\"index\":42,\
             \"place\":{place},\"winner\":{party},\"loser\":{party},\"message\":\"kept one\"}}\n"
        )
    };
    let events = |places: std::ops::Range<usize>| answer("200 OK", &places.rev().map(event).collect::<String>());
    let output = run(&["events", "--limit", "1002"], vec![events(2..1002), events(0..2)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), 1002);
    assert_eq!(said.lines().next(), Some("42-1001 | 2026-05-11T08:00:00Z | kept one"));
    assert_eq!(said.lines().last(), Some("42-0 | 2026-05-11T08:00:00Z | kept one"));
    // A page that is not full is the end; nobody would answer another question.
    let output = run(&["events"], vec![events(0..1)]);
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(0), 1));
}

#[test]
fn watching_appends_to_a_pipe_until_an_error() {
    let output = run(&["--watch=1", "status"], vec![answer("200 OK", &status_of("pinned")); 2]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert_eq!(said.matches("peer0                : PINNED").count(), 2, "{said}");
    assert!(!said.contains('\u{1b}') && said.contains("Code: 0"), "{said}");
}

/// Starts the program against a peer that takes the request and never answers it.
fn unanswered(arguments: &[&str]) -> (std::process::Child, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let host = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().expect("it is bound").port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-ctl"));
    command.args(["--host", &host]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program was just built");
    let (stream, _) = listener.accept().expect("the program connects");
    (child, stream)
}

#[test]
fn a_signal_to_terminate_ends_it_as_an_interrupt_does() {
    for signal in ["-TERM", "-INT"] {
        let (child, _stream) = unanswered(&["status"]);
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("the system can send signals").success());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(
            (output.status.code(), text(&output.stderr).as_str()),
            (Some(125), "error : cancelled\n"),
            "{signal}"
        );
    }
}

#[test]
fn a_peer_that_does_not_answer_in_time_is_not_called_unreachable() {
    let (child, _stream) = unanswered(&["--timeout", "1", "status"]);
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Code: 0") && said.contains("did not answer within the time"), "{said}");
}
