//! A server that takes one request per connection and answers with prepared bytes, however broken they are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cluster_client::{Client, ClientConfig};
use cluster_types::Multiaddr;

/// Longer than anything here takes; a test that hits it has hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server received.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Like `GET /id HTTP/1.1`.
    pub(crate) line: String,
    /// The other lines of the head, in lower case.
    pub(crate) headers: Vec<String>,
    /// The body, put together.
    pub(crate) body: Vec<u8>,
    /// Sizes of the chunks it came in.
    pub(crate) chunks: Vec<usize>,
    /// Whether its end was seen.
    pub(crate) is_complete: bool,
}

/// The running server.
pub(crate) struct Server {
    port: u16,
    received: Receiver<Request>,
}

impl Server {
    /// Serves one connection per answer, then none.
    pub(crate) fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, received) = channel();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let request = read(&stream);
                let is_complete = request.is_complete;
                drop(sender.send(request));
                if is_complete {
                    drop(stream.write_all(answer.as_bytes()));
                }
            }
        });
        Self { port, received }
    }

    /// What came next.
    pub(crate) fn request(&self) -> Request {
        self.received.recv_timeout(PATIENCE).unwrap()
    }

    /// Whether nothing more can come: all answers are given.
    pub(crate) fn has_seen_nothing(&self) -> bool {
        self.received.try_recv().is_err()
    }

    pub(crate) fn address(&self) -> Multiaddr {
        loopback(self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(ClientConfig::new(self.address())).unwrap()
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> Multiaddr {
    // The listener is closed when this returns.
    loopback(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// A client of several endpoints.
pub(crate) fn client_of(endpoints: Vec<Multiaddr>) -> Client {
    let config = ClientConfig::new(endpoints[0].clone());
    Client::new(ClientConfig { endpoints, ..config }).unwrap()
}

fn loopback(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut request = Request { line: line(&mut reader), ..Request::default() };
    loop {
        let header = line(&mut reader);
        if header.is_empty() {
            break;
        }
        request.headers.push(header.to_lowercase());
    }
    let length = request.headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok());
    if let Some(length) = length {
        request.body = vec![0; length];
        request.is_complete = reader.read_exact(&mut request.body).is_ok();
        return request;
    }
    if !request.headers.iter().any(|header| header == "transfer-encoding: chunked") {
        request.is_complete = true;
        return request;
    }
    while let Ok(size) = usize::from_str_radix(&line(&mut reader), 16) {
        let mut chunk = vec![0; size];
        if reader.read_exact(&mut chunk).is_err() {
            break;
        }
        line(&mut reader);
        if size == 0 {
            request.is_complete = true;
            break;
        }
        request.body.extend_from_slice(&chunk);
        request.chunks.push(size);
    }
    request
}

fn line(reader: &mut impl BufRead) -> String {
    let mut text = String::new();
    drop(reader.read_line(&mut text));
    text.trim_end().to_owned()
}
