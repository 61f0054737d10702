//! What stands between a socket and the HTTP engine: timeouts, and trailers for everyone.
//!
//! The engine times heads only, and counts the silence of a kept connection as a slow head; here the two are told
//! apart, and a client that will not read is given up. The engine also sends trailers only to clients that ask for
//! them (`TE: trailers`), which the clients of the original do not; so trailers are taken out of the body here and
//! written between the last chunk and the end of the message.
//!
//! **Invariant:** trailers are written only where the engine ends a chunked body. When a body has ended, the engine has put
//! that end behind all that is to be written, and puts nothing behind it before everything is written; so whatever the body
//! holds, the last place that looks like its end is the end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::access::{AccessLog, Entry};
use crate::config::RestConfig;
use crate::listener::Socket;
use crate::reply::Body;

/// How the HTTP engine ends a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What stands for no limit: longer than a connection lives.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the head of a request.
    pub(crate) head: Duration,
    /// For a whole request, from its head on.
    pub(crate) body: Duration,
    /// From the head of a request to the end of its answer.
    pub(crate) answer: Duration,
    /// For anything else it is expected to do.
    pub(crate) idle: Duration,
}

impl Patience {
    /// The limits of a configuration; those that are not there fall back as in the original.
    pub(crate) fn new(config: &RestConfig) -> Self {
        let or_read = |limit: Option<Duration>| limit.or(config.read_timeout).unwrap_or(FOREVER).min(FOREVER);
        Self {
            head: or_read(config.read_header_timeout),
            body: or_read(None),
            answer: config.write_timeout.unwrap_or(FOREVER).min(FOREVER),
            idle: or_read(config.idle_timeout),
        }
    }
}

/// What the socket side and the HTTP side of a connection know of each other.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: u64,
    /// When the head of the last request had arrived.
    begun: Option<Instant>,
    busy: bool,
    received: bool,
    trailers: Option<Vec<u8>>,
    /// The answer failed, and its client has no trailers to be told.
    broken: bool,
}

impl Exchange {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request's head has arrived.
    pub(crate) fn begin(&self) {
        self.with(|state| {
            state.busy = true;
            state.requests += 1;
            state.begun = Some(Instant::now());
        });
    }

    /// Whether the client has not sent a byte yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.with(|state| !state.received)
    }
}

/// The answer failed, and its client is told by a connection that breaks: HTTP/1.0 has no other way.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer failed when it had begun")]
pub(crate) struct Broken;

/// A socket that can be made to break.
pub(crate) trait Breakable {
    /// Lets the other side see a break, not an end, when this is dropped. As far as the socket can.
    fn break_off(&self);
}

impl Breakable for Socket {
    fn break_off(&self) {
        if let Self::Left(Either::Left(socket)) = self {
            // If this fails the client sees an end, as it would have anyway.
            let _ = socket.set_zero_linger();
        }
    }
}

impl<S: Breakable> Breakable for Either<Box<TlsStream<S>>, S> {
    fn break_off(&self) {
        match self {
            Self::Left(secured) => secured.get_ref().0.break_off(),
            Self::Right(socket) => socket.break_off(),
        }
    }
}

/// The body of an answer on its way to the engine; its end is the end of the exchange.
#[derive(Debug)]
pub(crate) struct OutgoingBody {
    inner: Body,
    exchange: Arc<Exchange>,
    log: Arc<AccessLog>,
    entry: Entry,
    status: StatusCode,
    bytes: u64,
}

impl OutgoingBody {
    /// The body of `answer` to the request of `entry`; its trailers go through `exchange`.
    pub(crate) fn within(
        answer: Response<Body>,
        exchange: Arc<Exchange>,
        log: Arc<AccessLog>,
        entry: Entry,
    ) -> Response<Self> {
        let status = answer.status();
        answer.map(|inner| Self { inner, exchange, log, entry, status, bytes: 0 })
    }
}

impl Drop for OutgoingBody {
    fn drop(&mut self) {
        self.exchange.with(|state| state.busy = false);
        self.log.log(self.entry.line(self.status, self.bytes));
    }
}

impl http_body::Body for OutgoingBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) if self.entry.has_no_trailers() && trailers.values().any(|error| !error.is_empty()) => {
                    self.exchange.with(|state| state.broken = true);
                    Poll::Ready(Some(Err(Broken)))
                }
                Ok(trailers) => {
                    self.exchange.with(|state| state.trailers = Some(encode(&trailers)));
                    Poll::Ready(None)
                }
                Err(frame) => {
                    self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Some(Err(broken)) => {
                self.exchange.with(|state| state.broken = true);
                Poll::Ready(Some(Err(broken)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn encode(trailers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        let words = name.as_str().split('-').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        });
        lines.extend_from_slice(words.collect::<Vec<_>>().join("-").as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// A socket with the rules of this module.
#[derive(Debug)]
pub(crate) struct GuardedSocket<S: Breakable> {
    socket: S,
    exchange: Arc<Exchange>,
    patience: Patience,
    reading: Pin<Box<Sleep>>,
    /// The request whose head, or the one after it, is being waited for.
    waiting_after: u64,
    in_head: bool,
    writing: Option<Pin<Box<Sleep>>>,
    /// The last two bytes that were written.
    last: [u8; 2],
    /// The end of a message with its trailers, and how much of it is written.
    ending: Vec<u8>,
    ended: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Breakable> GuardedSocket<S> {
    /// `socket`, from which a request is expected at once.
    pub(crate) fn new(socket: S, exchange: Arc<Exchange>, patience: Patience) -> Self {
        Self {
            socket,
            exchange,
            patience,
            reading: Box::pin(tokio::time::sleep(patience.head)),
            waiting_after: 0,
            in_head: true,
            writing: None,
            last: [0; 2],
            ending: Vec::new(),
            ended: 0,
        }
    }

    fn write_guarded(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let late = self.exchange.with(|state| state.begun).map(|begun| begun + self.patience.answer);
        if late.is_some_and(|late| late <= Instant::now()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer took too long")));
        }
        match Pin::new(&mut self.socket).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => {
                self.writing = None;
                for byte in &bytes[written.saturating_sub(2)..written] {
                    self.last = [self.last[1], *byte];
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let idle = Instant::now() + self.patience.idle;
                let until = late.map_or(idle, |late| late.min(idle));
                let timer = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
            }
        }
    }

    fn write_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ended < self.ending.len() {
            let rest = self.ending[self.ended..].to_vec();
            let written = ready!(self.write_guarded(cx, &rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ended += written;
        }
        self.ending.clear();
        self.ended = 0;
        Poll::Ready(Ok(()))
    }
}

/// Where the last end of a chunked body begins in `bytes`, which follow `last` on the wire.
fn find_last_chunk(last: [u8; 2], bytes: &[u8]) -> Option<usize> {
    bytes.windows(LAST_CHUNK.len()).enumerate().rev().find_map(|(place, window)| {
        let before = match place {
            0 => last,
            1 => [last[1], bytes[0]],
            _ => [bytes[place - 2], bytes[place - 1]],
        };
        (window == LAST_CHUNK && before == *b"\r\n").then_some(place)
    })
}

impl<S: Breakable> Drop for GuardedSocket<S> {
    fn drop(&mut self) {
        if self.exchange.with(|state| state.broken) {
            self.socket.break_off();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Breakable> AsyncRead for GuardedSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = into.filled().len();
        let outcome = Pin::new(&mut this.socket).poll_read(cx, into);
        let got_bytes = into.filled().len() > before;
        let (busy, requests) = this.exchange.with(|state| {
            state.received |= got_bytes;
            (state.busy, state.requests)
        });
        if busy {
            return outcome;
        }
        if requests != this.waiting_after {
            this.waiting_after = requests;
            this.in_head = false;
            this.reading.as_mut().reset(Instant::now() + this.patience.idle);
        }
        if got_bytes && !this.in_head {
            this.in_head = true;
            this.reading.as_mut().reset(Instant::now() + this.patience.head);
        }
        if outcome.is_pending() && this.reading.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time")));
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Breakable> AsyncWrite for GuardedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_ending(cx))?;
        if !self.exchange.with(|state| state.trailers.is_some()) {
            return self.write_guarded(cx, bytes);
        }
        match find_last_chunk(self.last, bytes) {
            None => self.write_guarded(cx, bytes),
            Some(0) => {
                let trailers = self.exchange.with(|state| state.trailers.take()).unwrap_or_default();
                self.ending = [b"0\r\n".as_slice(), &trailers, b"\r\n"].concat();
                // Whatever is not written now goes out with the next write, flush or shutdown.
                if let Poll::Ready(Err(error)) = self.write_ending(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(LAST_CHUNK.len()))
            }
            Some(place) => self.write_guarded(cx, &bytes[..place]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_ending(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_ending(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::STREAM_ERROR;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(5), body: FOREVER, answer: FOREVER, idle: Duration::from_secs(120) };

    impl Breakable for tokio::io::DuplexStream {
        fn break_off(&self) {}
    }

    #[test]
    fn the_end_is_found_however_writes_are_cut() {
        assert_eq!(find_last_chunk(*b"\r\n", b"0\r\n\r\n"), Some(0));
        assert_eq!(find_last_chunk(*b"x\r", b"\n0\r\n\r\n"), Some(1));
        assert_eq!(find_last_chunk(*b"xx", b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1"), Some(8));
        assert_eq!(find_last_chunk(*b"xx", b"content-length: 0\r\n\r\n"), None);
        assert_eq!(find_last_chunk(*b"\r\n", b"0\r\n\r\n is data\r\n0\r\n\r\n"), Some(15));
    }

    #[test]
    fn trailers_are_spelled_as_headers() {
        let trailers = HeaderMap::from_iter([(STREAM_ERROR, http::HeaderValue::from_static("no"))]);
        assert_eq!(encode(&trailers), b"X-Stream-Error: no\r\n");
    }

    #[tokio::test]
    async fn trailers_stand_between_the_last_chunk_and_the_end() {
        for room in [1, 2, 3, 7, 1024] {
            let exchange = Arc::new(Exchange::default());
            let (ours, mut theirs) = tokio::io::duplex(room);
            let mut guarded = GuardedSocket::new(ours, Arc::clone(&exchange), PATIENCE);
            exchange.with(|state| state.trailers = Some(b"x-stream-error: broken\r\n".to_vec()));
            let write = async move {
                guarded
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\na\r\n0\n\r\n0\r\n\r\n.\r\n0\r\n\r\nHTTP/1.1 204")
                    .await
                    .unwrap();
                guarded.shutdown().await.unwrap();
            };
            let mut wire = String::new();
            let (_, read) = tokio::join!(write, theirs.read_to_string(&mut wire));
            read.unwrap();
            let expected =
                "HTTP/1.1 200 OK\r\n\r\na\r\n0\n\r\n0\r\n\r\n.\r\n0\r\nx-stream-error: broken\r\n\r\nHTTP/1.1 204";
            assert_eq!(wire, expected, "room for {room}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_in_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut guarded = GuardedSocket::new(ours, Arc::new(Exchange::default()), PATIENCE);
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if theirs.write_all(b"x").await.is_err() {
                    return;
                }
            }
        };
        let mut into = [0; 64];
        let read = async { while guarded.read(&mut into).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            () = trickle => unreachable!("the reader is not dropped"),
            () = read => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_may_be_silent_for_longer_than_a_head() {
        let exchange = Arc::new(Exchange::default());
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut guarded = GuardedSocket::new(ours, Arc::clone(&exchange), PATIENCE);
        exchange.begin();
        exchange.with(|state| state.busy = false);
        let start = Instant::now();
        let error = guarded.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), PATIENCE.idle.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_will_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut guarded = GuardedSocket::new(ours, Arc::new(Exchange::default()), PATIENCE);
        let error = guarded.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_the_time_that_its_request_left_it() {
        let exchange = Arc::new(Exchange::default());
        let patience = Patience { answer: Duration::from_secs(30), ..PATIENCE };
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut guarded = GuardedSocket::new(ours, Arc::clone(&exchange), patience);
        exchange.begin();
        let start = Instant::now();
        let read_slowly = async {
            let mut byte = [0];
            while theirs.read(&mut byte).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(Duration::from_secs(8)).await;
            }
        };
        let write = async { guarded.write_all(b"more than fits").await.unwrap_err() };
        tokio::select! {
            () = read_slowly => unreachable!("the writer is not dropped"),
            error = write => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        }
        assert_eq!(start.elapsed().as_secs(), 30);
        exchange.begin();
        assert_eq!(guarded.write(b"").await.unwrap(), 0, "the next one has its own");
    }

    #[test]
    fn what_has_no_limit_of_its_own_has_that_of_the_request() {
        let config = RestConfig { read_header_timeout: None, idle_timeout: None, ..RestConfig::default() };
        let none = Patience::new(&config);
        assert_eq!([none.head, none.body, none.answer, none.idle], [FOREVER; 4]);
        let minute = Duration::from_secs(60);
        let some = Patience::new(&RestConfig { read_timeout: Some(minute), ..config });
        assert_eq!([some.head, some.body, some.answer, some.idle], [minute, minute, FOREVER, minute]);
    }
}
