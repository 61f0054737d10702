//! Just enough HTTP to ask a peer on the loopback interface: one request per connection, the whole answer in memory.
//!
//! **Invariant:** an answer that breaks off is an error, never a shorter answer: chunked bodies need their last chunk,
//! others their announced length, and a stream's error in the trailer is reported.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is taken: a listing of this demo has about 200 kB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// What a peer answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Asks once and waits at most `limit` for the whole answer.
pub(super) async fn ask(peer: SocketAddr, method: &str, path: &str, limit: Duration) -> anyhow::Result<Answer> {
    let exchange = async {
        let mut connection = TcpStream::connect(peer).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {peer}\r\nConnection: close\r\nContent-Length: 0\r\nAccept: */*\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let bytes = tokio::time::timeout(limit, exchange)
        .await
        .with_context(|| format!("{method} {path}: no answer within {limit:?}"))?
        .with_context(|| format!("{method} {path}"))?;
    parse(&bytes).with_context(|| format!("{method} {path}"))
}

fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let (head, body) = split_once(bytes, b"\r\n\r\n").context("the answer broke off in its headers")?;
    let head = str::from_utf8(head).context("the headers are not text")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.context("the answer has no status")?;
    let headers: Vec<(String, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_ascii_lowercase(), v.trim())).collect();
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(Answer { status, body: dechunk(body)? });
    }
    if let Some(length) = header("content-length") {
        let length: usize = length.parse().context("the length of the answer is not a number")?;
        if body.len() != length {
            bail!("the answer broke off: {} of {length} bytes", body.len());
        }
    }
    Ok(Answer { status, body: body.to_vec() })
}

fn dechunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (size, tail) = split_once(rest, b"\r\n").context("the answer broke off between two chunks")?;
        let size = str::from_utf8(size)?.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("the size of a chunk is not a number")?;
        if size == 0 {
            return check_trailer(tail).map(|()| body);
        }
        let end = size.checked_add(2).filter(|end| *end <= tail.len()).context("the answer broke off in a chunk")?;
        body.extend_from_slice(&tail[..size]);
        rest = &tail[end..];
    }
}

fn check_trailer(trailer: &[u8]) -> anyhow::Result<()> {
    for line in String::from_utf8_lossy(trailer).lines() {
        let Some((name, text)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("x-stream-error") && !text.trim().is_empty() {
            bail!("the listing ended with an error: {}", text.trim());
        }
    }
    Ok(())
}

fn split_once<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..place], &bytes[place + mark.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_read() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, b"no".as_slice()));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Stream-Error: \r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, b"abcde");
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().status, 204);
    }

    #[test]
    fn broken_answers_are_errors() {
        for broken in [
            b"HTTP/1.1 200 OK\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nno",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Stream-Error: out of luck\r\n\r\n",
            b"nonsense\r\n\r\n",
        ] {
            assert!(parse(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
