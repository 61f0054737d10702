//! Requests and answers as files in `tests/golden`.
//!
//! A file has three parts separated by a line of `=====`: the request (its first line names the script of the fake
//! cluster), the answer byte by byte but for its date, and the calls that reached the cluster.
//! `UPDATE_GOLDEN=1` writes the last two anew; what changed must then be read.

use std::path::PathBuf;

use crate::fake::Script;
use crate::harness::{World, request, status};

const SEPARATOR: &str = "=====\n";

/// The bytes to send: the first line is the request line, then headers, an empty line and the body.
fn bytes_of(text: &str) -> Vec<u8> {
    let (line, rest) = text.split_once('\n').unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let (headers, body) = match rest.strip_prefix('\n') {
        Some(body) => ("", body),
        None => rest.split_once("\n\n").unwrap_or((rest.trim_end(), "")),
    };
    let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
    request(method, target, &headers, body.replace('\n', "\r\n").as_bytes())
}

fn without_date(answer: &str) -> String {
    let lines = answer.split_inclusive('\n').filter(|line| !line.starts_with("date: "));
    lines.collect::<String>().replace("\r\n", "\n")
}

#[tokio::test]
async fn answers_are_those_of_the_golden_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 40, "golden files are missing");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let asked = text.split(SEPARATOR).next().unwrap();
        let (script, asked_text) = asked.split_once('\n').unwrap();
        let world = World::new(Script::named(script)).await;
        let answer = world.raw(&bytes_of(asked_text)).await;
        let calls = world.cluster.calls();
        if (400..500).contains(&status(&answer)) && script == "works" {
            let harmless = calls.iter().all(|call| call.starts_with("add ") || call.starts_with("aborted"));
            assert!(harmless, "{}: {calls:?}", file.display());
        }
        let calls: String = calls.iter().map(|call| format!("{call}\n")).collect();
        let seen = format!("{asked}{SEPARATOR}{}{SEPARATOR}{calls}", without_date(&answer));
        if update {
            std::fs::write(&file, &seen).unwrap();
        } else if seen != text {
            wrong.push(format!("{}\n--- expected\n{text}\n--- seen\n{seen}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
