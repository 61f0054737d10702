//! Bytes on a socket, as no client library would send them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a peer may take for an answer, or to hang up.
const LIMIT: Duration = Duration::from_secs(60);

/// An HTTP answer; status 0 if there was none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// What is wrong with the answer if it should be an error with this status whose JSON says `text`.
    pub(super) fn problem(&self, request: &str, status: u16, text: &str) -> Option<String> {
        let has_body = status >= 400 && !matches!(status, 405 | 431);
        let code = if has_body { format!("{{\"code\":{status},\"message\":\"") } else { String::new() };
        let is_right = self.status == status && self.text.contains(text) && self.text.contains(&code);
        (!is_right).then(|| format!("{request} must give {status} and say {text:?}: {}\n", self.text))
    }
}

/// A whole request, after whose answer the connection ends.
pub(super) fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads the answer.
pub(super) async fn ask(port: u16, bytes: &[u8]) -> Answer {
    let text = talk(port, bytes, false).await;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Answer { status: status.unwrap_or(0), text }
}

/// Sends bytes, and nothing after them; returns what is answered until the other side hangs up.
pub(super) async fn cut(port: u16, bytes: &[u8]) -> String {
    talk(port, bytes, true).await
}

async fn talk(port: u16, bytes: &[u8], cut: bool) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let talk = async {
        // Whoever has seen enough may hang up before the last byte.
        let sent = socket.write_all(bytes).await;
        if cut && sent.is_ok() {
            drop(socket.shutdown().await);
        }
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let spoken = tokio::time::timeout(LIMIT, talk).await;
    spoken.unwrap_or_else(|_| panic!("port {port} is silent after {:?}", String::from_utf8_lossy(bytes)))
}
