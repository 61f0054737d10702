//! Requests and answers as files in `tests/golden`.
//!
//! A file has three parts separated by a line of `=====`: the request (its first line names the script of the fake
//! cluster, and `guarded` after it has passwords asked for), the answer byte by byte but for its date, and the calls that
//! reached the cluster. Of a token with a random part, the claims stand in its place.
//! `UPDATE_GOLDEN=1` writes the last two anew; what changed must then be read.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_api::{Credentials, RestConfig, Scope, Scopes};

use crate::fake::Script;
use crate::harness::{World, config, request, status};

/// Longer than anything but a client takes that does not send what it said.
const STALL: Duration = Duration::from_secs(2);
pub(crate) const SEPARATOR: &str = "=====\n";

/// The bytes to send: the first line is the request line, then headers, an empty line and the body.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    let (line, rest) = text.split_once('\n').unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let (headers, body) = match rest.strip_prefix('\n') {
        Some(body) => ("", body),
        None => rest.split_once("\n\n").unwrap_or((rest.trim_end(), "")),
    };
    let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
    request(method, target, &headers, body.replace('\n', "\r\n").as_bytes())
}

/// `ann` may do everything, `bob` only look, `eve` only pin.
fn guarded() -> RestConfig {
    let pairs = [("ann", "secret"), ("bob", "looks"), ("eve", "writes")];
    let mut users = Credentials::new(pairs.map(|(user, word)| (user.to_owned(), word.to_owned())).into());
    for (user, scope) in [("bob", Scope::Read), ("eve", Scope::Pin)] {
        users.scopes.insert(user.to_owned(), Scopes::from_iter([scope]));
    }
    RestConfig { credentials: Some(users), ..config() }
}

/// An answer whose token shows its claims if one of them is random.
fn with_claims(answer: String) -> String {
    let token = answer.split_once("{\"token\":\"").and_then(|(_, rest)| rest.split_once('"'));
    let Some((token, _)) = token else { return answer };
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims = String::from_utf8(claims).unwrap();
    let Some((before, random)) = claims.split_once("\"jti\":\"") else { return answer };
    let (random, after) = random.split_once('"').unwrap();
    assert_eq!(random.len(), 22, "{claims}");
    // What is shown stands within a text of JSON.
    answer.replace(token, &format!("{before}\"jti\":\"(random)\"{after}").replace('"', "'"))
}

pub(crate) fn without_date(answer: &str) -> String {
    let lines = answer.split_inclusive('\n').filter(|line| !line.starts_with("Date: "));
    lines.collect::<String>().replace("\r\n", "\n")
}

#[tokio::test]
async fn answers_are_those_of_the_golden_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "http"));
    files.sort();
    assert!(files.len() > 120, "golden files are missing");
    let mut wrong = Vec::new();
    // One of them is about a body that does not come.
    let config = RestConfig { idle_timeout: Some(STALL), ..config() };
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let asked = text.split(SEPARATOR).next().unwrap();
        let (script, asked_text) = asked.split_once('\n').unwrap();
        let world = match script.strip_suffix(" guarded") {
            Some(script) => World::with(guarded(), Script::named(script)).await,
            None => World::with(config.clone(), Script::named(script)).await,
        };
        let answer = world.raw(&bytes_of(asked_text)).await;
        let calls = world.cluster.calls();
        if (400..500).contains(&status(&answer)) && script.starts_with("works") {
            let harmless = calls.iter().all(|call| call.starts_with("add ") || call.starts_with("aborted"));
            assert!(harmless, "{}: {calls:?}", file.display());
        }
        let calls: String = calls.iter().map(|call| format!("{call}\n")).collect();
        let seen = format!("{asked}{SEPARATOR}{}{SEPARATOR}{calls}", with_claims(without_date(&answer)));
        if update {
            std::fs::write(&file, &seen).unwrap();
        } else if seen != text {
            wrong.push(format!("{}\n--- expected\n{text}\n--- seen\n{seen}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
