//! Configurations that stand elsewhere: `{"source": "<url>"}`, fetched at every start.
//!
//! **Invariant:** what comes is bounded in size and time, and cannot point to another source.

use std::net::IpAddr;
use std::time::Duration;

use cluster_types::BoxError;
use serde_json::{Map, Value};

use super::error::ConfigError;
use super::load::{MAX_FILE_BYTES, source_in, without_password};

/// How long connecting, and fetching in all, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches the configuration at `url`. Waits for it; may be called inside and outside of a runtime.
pub fn fetch_source(url: &str) -> Result<Map<String, Value>, ConfigError> {
    let unreachable = |cause: BoxError| ConfigError::SourceUnreachable { url: without_password(url), cause };
    let fetched = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(fetch(url))
        });
        fetching.join().unwrap_or_else(|_panic| Err("the fetch ended in a panic".into()))
    });
    let text = fetched.map_err(unreachable)?;
    let mut file: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|cause| ConfigError::NotJson { path: without_password(url).into(), cause })?;
    if source_in(&file).is_some() {
        return Err(ConfigError::SourceOfSource { url: without_password(url) });
    }
    // An empty one is none.
    file.remove("source");
    Ok(file)
}

async fn fetch(url: &str) -> Result<Vec<u8>, BoxError> {
    // Another part of the program may have chosen already; any choice will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = reqwest::Url::parse(url)?;
    let mut client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
    if is_here(&url) {
        // A proxy would look on another machine.
        client = client.no_proxy();
    }
    let mut answer = client.build()?.get(url).send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("the answer is {status}").into());
    }
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if text.len() + piece.len() > limit {
            return Err(format!("it has more than the {limit} bytes that a configuration may have").into());
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

fn is_here(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Many peers start from one fetched configuration; with its identity they would all be one peer.
pub(super) fn drop_identity(file: &mut Map<String, Value>) -> Option<String> {
    let cluster = file.get_mut("cluster")?.as_object_mut()?;
    let dropped = ["id", "private_key"].map(|key| cluster.remove(key).is_some());
    let line = "cluster.id and cluster.private_key of a fetched configuration are not used: every peer has its own";
    dropped.contains(&true).then(|| line.to_owned())
}

/// Files that are written: who offers a configuration to others must not choose among all that they have.
const WRITTEN: [&[&str]; 3] =
    [&["cluster", "peerstore_file"], &["api", "restapi", "http_log_file"], &["api", "pinsvcapi", "http_log_file"]];

/// Leaves out names of files outside the configuration folder.
pub(super) fn drop_places(file: &mut Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    for path in WRITTEN {
        let [sections @ .., key] = path else { continue };
        let mut section = Some(&mut *file);
        for name in sections {
            section = section.and_then(|section| section.get_mut(*name)?.as_object_mut());
        }
        let Some(section) = section else { continue };
        let is_plain = |name: &str| !name.contains('/') && name != "..";
        if section.get(*key).is_some_and(|name| name.as_str().is_none_or(|name| !is_plain(name))) {
            section.remove(*key);
            notes.push(format!("{} of a fetched configuration is not used: it is no name of a file", path.join(".")));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use cluster_types::ErrorChain;

    use super::*;

    /// Answers one request with `answer`; the address it does so at.
    fn serve(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            drop(socket.read(&mut head));
            // The client may hang up before it has everything.
            drop(socket.write_all(&answer));
        });
        format!("http://{address}/service.json")
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn failure(answer: Vec<u8>) -> String {
        ErrorChain(&fetch_source(&serve(answer)).unwrap_err()).to_string()
    }

    #[test]
    fn a_configuration_comes_as_it_is() {
        let found = fetch_source(&serve(answer("200 OK", r#"{"cluster": {"peername": "x"}}"#))).unwrap();
        assert_eq!(found["cluster"]["peername"], "x");
    }

    #[tokio::test]
    async fn it_may_be_fetched_inside_a_runtime() {
        assert!(fetch_source(&serve(answer("200 OK", "{}"))).unwrap().is_empty());
    }

    #[test]
    fn what_is_fetched_is_no_other_peer_and_writes_no_other_file() {
        let Value::Object(mut file) = serde_json::json!({
            "cluster": {"id": "x", "private_key": "y", "peername": "z", "peerstore_file": "../authorized_keys"},
            "api": {"restapi": {"http_log_file": "/etc/passwd"}, "pinsvcapi": {"http_log_file": "own.log"}},
        }) else {
            unreachable!("it is an object")
        };
        assert!(drop_identity(&mut file).is_some());
        let notes = drop_places(&mut file).join("\n");
        assert!(notes.contains("cluster.peerstore_file of a fetched") && notes.contains("api.restapi.http_log_file"));
        let left = serde_json::json!({
            "cluster": {"peername": "z"},
            "api": {"restapi": {}, "pinsvcapi": {"http_log_file": "own.log"}},
        });
        assert_eq!(Value::Object(file.clone()), left);
        assert!(drop_identity(&mut file).is_none() && drop_places(&mut file).is_empty());
        for bad in ["..", "/x", "a/b"] {
            file["cluster"]["peerstore_file"] = bad.into();
            assert_eq!(drop_places(&mut file).len(), 1, "{bad}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_place() {
        let nested = failure(answer("200 OK", r#"{"source": "http://example.org"}"#));
        assert!(nested.contains("a sourced configuration cannot point to another source"), "{nested}");
        assert!(failure(answer("404 Not Found", "{}")).contains("404"));
        assert!(failure(answer("200 OK", "[]")).contains("http://127.0.0.1"));
        assert!(failure(answer("200 OK", "<html>")).contains("not valid JSON"));
        let endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        let endless = [endless, vec![b' '; 5 * 1024 * 1024]].concat();
        assert!(failure(endless).contains("more than the"));
        for bad in ["", "service.json", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x"] {
            assert!(fetch_source(bad).unwrap_err().to_string().contains("cannot fetch"), "{bad}");
        }
    }
}
