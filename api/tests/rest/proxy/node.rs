//! A node that answers from a script and remembers what it was asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake::{CID, OTHER};

/// Whose pages may use it.
const PAGE: &str = "https://page.example";
/// The length of a large answer.
pub(super) const LARGE: usize = 3_000_000;
/// What stands in a large answer, over and over: it looks like the end of a chunked body.
pub(super) const LIKE_AN_END: &[u8] = b"\r\n0\r\n\r\n";

/// The scripted node.
pub(super) struct FakeNode {
    pub(super) port: u16,
    seen: watch::Receiver<Vec<String>>,
    serving: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeNode {
    #[expect(clippy::disallowed_methods, reason = "a double ends with its test")]
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, seen) = watch::channel(Vec::new());
        let log = Arc::new(log);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                drop(tokio::spawn(serve(socket, Arc::clone(&log))));
            }
        });
        Self { port, seen, serving }
    }

    /// Accepts nothing any more.
    pub(super) async fn die(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Returns once it was asked something, or has noticed something, that begins with `text`.
    pub(super) async fn saw(&self, text: &str) {
        let mut seen = self.seen.clone();
        let saw = seen.wait_for(|lines| lines.iter().any(|line| line.starts_with(text)));
        let waited = tokio::time::timeout(Duration::from_secs(20), saw).await;
        assert!(matches!(waited, Ok(Ok(_))), "nothing of {text}: {:?}", self.seen());
    }

    /// What it was asked, in order: a line for each request, with its body if it has one.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }
}

async fn serve(mut socket: TcpStream, log: Arc<watch::Sender<Vec<String>>>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
    let header = |name: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length = header("content-length").map(|length| length.parse::<usize>().unwrap());
    let is_chunked = header("transfer-encoding").is_some();
    let whole = |bytes: &[u8]| match length {
        Some(length) => bytes.len() >= length,
        None => !is_chunked || bytes.ends_with(b"\r\n0\r\n\r\n"),
    };
    while !whole(&bytes) {
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            log.send_modify(|lines| lines.push("a body broke off".to_owned()));
            return;
        }
    }
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut seen = line.clone();
    for name in ["origin", "access-control-request-method", "connection", "x-hop", "te", "host", "x-end"] {
        if let Some(value) = header(name).filter(|value| !value.starts_with("127.0.0.1")) {
            seen.push_str(&format!(" {name}={value}"));
        }
    }
    if !bytes.is_empty() {
        seen.push_str(&format!(", {} bytes", bytes.len()));
    }
    log.send_modify(|lines| lines.push(seen));
    if line.ends_with("hangs") {
        while socket.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
        log.send_modify(|lines| lines.push("who asked went away".to_owned()));
        return;
    }
    let answer = answer(&line, header("origin").as_deref());
    let _ = socket.write_all(&answer).await;
    let _ = socket.shutdown().await;
}

fn answer(line: &str, origin: Option<&str>) -> Vec<u8> {
    let text = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
            .into_bytes()
    };
    let (method, target) = line.split_once(' ').unwrap();
    let chunked = |body: &str, end: &str| {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nTrailer: X-Stream-Error\r\n\
            Transfer-Encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n{end}", body.len()).into_bytes()
    };
    if method == "OPTIONS" {
        let allowed = "Access-Control-Allow-Origin: https://page.example\r\nAccess-Control-Allow-Credentials: true\r\n";
        let allowed = if origin == Some(PAGE) { allowed } else { "" };
        return text("204 No Content", &format!("Vary: Origin\r\nAllow: OPTIONS, POST\r\n{allowed}"), "");
    }
    match target.trim_start_matches("/api/v0/") {
        "version" => text(
            "200 OK",
            "Content-Type: application/json\r\nAccess-Control-Expose-Headers: X-Stream-Output\r\nX-Of-Node: yes\r\n",
            "{\"Version\":\"0.42.0\"}\n",
        ),
        "block/put?pin=true" => {
            chunked(&format!("{{\"Key\":\"{CID}\",\"Size\":5}}\n{{\"Key\":\"{OTHER}\",\"Size\":6}}\n"), "0\r\n\r\n")
        }
        "block/put?pin=true&mhtype=bad" => text(
            "500 Internal Server Error",
            "Content-Type: application/json\r\n",
            "{\"Message\":\"unrecognized multihash function: bad\",\"Code\":0,\"Type\":\"error\"}\n",
        ),
        "block/put?pin=true&late" => {
            chunked(&format!("{{\"Key\":\"{CID}\",\"Size\":5}}\n"), "0\r\nX-Stream-Error: the disk is full\r\n\r\n")
        }
        "block/put?pin=true&strange" => chunked("<html>\n", "0\r\n\r\n"),
        "dag/put?input-codec=dag-json&pin=false" => {
            chunked(&format!("{{\"Cid\":{{\"/\":\"{OTHER}\"}}}}\n"), "0\r\n\r\n")
        }
        "cat?arg=late" => chunked("some of it", "0\r\nX-Stream-Error: a block is missing\r\n\r\n"),
        "cat?arg=broken" => chunked("some of it", ""),
        "cat?arg=large" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            head.into_bytes().into_iter().chain(LIKE_AN_END.iter().copied().cycle().take(LARGE)).collect()
        }
        "cat?arg=like-an-end" => {
            let body = String::from_utf8(LIKE_AN_END.repeat(3)).unwrap();
            chunked(&body, "0\r\nX-Stream-Error: a block is missing\r\n\r\n")
        }
        "files/write" => text("200 OK", "Content-Type: text/plain\r\nKeep-Alive: timeout=5\r\n", ""),
        _ => text("404 Not Found", "Content-Type: text/plain; charset=utf-8\r\n", "404 page not found\n"),
    }
}
