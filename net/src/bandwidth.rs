//! Counts what goes over each protocol, as `GET /health/bandwidth` tells it.
//!
//! Streams are counted below the protocols and above the encryption: bytes of all streams are the traffic of the peer but for
//! frames and goodbyes. Which protocol a stream speaks is read from its negotiation: whoever was asked repeats the name that
//! it takes. Until then its bytes wait, so nothing is counted under a name that was refused.
//!
//! **Invariant:** at most [`MAX_PROTOCOLS`] names are kept, whatever others call their protocols.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_types::Bandwidth;
use futures::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Names of protocols that are kept; a peer speaks about ten.
const MAX_PROTOCOLS: usize = 64;
/// Under this name goes what came after the names were full, and what was never negotiated.
const OTHER: &str = "other";
/// The longest part of a negotiation that is looked at, in bytes: some refused names and one that is taken.
const MAX_NEGOTIATION: usize = 1024;
/// The header that both sides of a negotiation send first.
const HEADER: &[u8] = b"/multistream/1.0.0";
/// The answer to a name that is refused.
const REFUSED: &[u8] = b"na";
/// How far back a rate looks: what is older by this counts 1/e.
const MEMORY: Duration = Duration::from_secs(10);

/// Bytes in one direction, and how fast they come.
#[derive(Clone, Copy, Debug)]
struct Flow {
    total: u64,
    rate: f64,
    seen: Instant,
}

impl Flow {
    fn new(now: Instant) -> Self {
        Self { total: 0, rate: 0.0, seen: now }
    }

    /// Bytes in a second, as of `now`.
    fn rate(&self, now: Instant) -> f64 {
        let idle = now.saturating_duration_since(self.seen).as_secs_f64();
        self.rate * (-idle / MEMORY.as_secs_f64()).exp()
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    fn add(&mut self, bytes: u64, now: Instant) {
        self.rate = self.rate(now) + bytes as f64 / MEMORY.as_secs_f64();
        self.total += bytes;
        self.seen = now;
    }
}

/// Both directions of a protocol.
#[derive(Debug)]
struct Counted {
    received: Flow,
    sent: Flow,
}

/// What went over all protocols.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    protocols: Mutex<BTreeMap<String, Arc<Mutex<Counted>>>>,
}

impl Meters {
    /// What was counted, by protocol.
    pub(crate) fn read(&self) -> BTreeMap<String, Bandwidth> {
        let now = Instant::now();
        let read = |counted: &Arc<Mutex<Counted>>| {
            let counted = counted.lock();
            Bandwidth {
                total_in: counted.received.total,
                total_out: counted.sent.total,
                rate_in: counted.received.rate(now),
                rate_out: counted.sent.rate(now),
            }
        };
        self.protocols.lock().iter().map(|(name, counted)| (name.clone(), read(counted))).collect()
    }

    fn of(&self, protocol: &str) -> Arc<Mutex<Counted>> {
        let mut protocols = self.protocols.lock();
        let is_full = protocols.len() + 1 >= MAX_PROTOCOLS && !protocols.contains_key(protocol);
        let now = Instant::now();
        let new = || Arc::new(Mutex::new(Counted { received: Flow::new(now), sent: Flow::new(now) }));
        Arc::clone(protocols.entry(if is_full { OTHER } else { protocol }.to_owned()).or_insert_with(new))
    }
}

/// Which side of a stream repeats the name of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// This peer opened it, and the other answers.
    Here,
    /// The other peer opened it, and this one answers.
    There,
}

/// What is known of the protocol of a stream.
enum Protocol {
    /// The bytes of the negotiation that the answering side sent so far, and how many went in and out until now.
    Negotiating { said: Vec<u8>, received: u64, sent: u64 },
    /// It is counted there.
    Known(Arc<Mutex<Counted>>),
}

/// A stream whose bytes are counted.
pub(crate) struct Metered<S> {
    stream: S,
    opened: Opened,
    meters: Arc<Meters>,
    protocol: Protocol,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, opened: Opened, meters: Arc<Meters>) -> Self {
        let protocol = Protocol::Negotiating { said: Vec::new(), received: 0, sent: 0 };
        Self { stream, opened, meters, protocol }
    }

    /// These bytes came, or went.
    fn count(&mut self, bytes: &[u8], is_received: bool) {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // Whoever did not open the stream repeats the name.
        let is_answer = is_received == (self.opened == Opened::Here);
        match &mut self.protocol {
            Protocol::Known(counted) => {
                let mut counted = counted.lock();
                let flow = if is_received { &mut counted.received } else { &mut counted.sent };
                flow.add(more, Instant::now());
            }
            Protocol::Negotiating { said, received, sent } => {
                *(if is_received { received } else { sent }) += more;
                if is_answer {
                    let room = MAX_NEGOTIATION.saturating_sub(said.len());
                    said.extend(bytes.iter().take(room));
                    match agreed(said) {
                        Agreed::On(name) => self.settle(&name),
                        Agreed::NotYet if said.len() < MAX_NEGOTIATION => {}
                        Agreed::NotYet | Agreed::Never => self.settle(OTHER),
                    }
                }
            }
        }
    }

    /// From now on the stream counts for `protocol`, and so does what waited.
    fn settle(&mut self, protocol: &str) {
        let counted = self.meters.of(protocol);
        if let Protocol::Negotiating { received, sent, .. } = &self.protocol {
            let (mut counted, now) = (counted.lock(), Instant::now());
            counted.received.add(*received, now);
            counted.sent.add(*sent, now);
        }
        self.protocol = Protocol::Known(counted);
    }
}

impl<S> Drop for Metered<S> {
    fn drop(&mut self) {
        if matches!(&self.protocol, Protocol::Negotiating { received, sent, .. } if received + sent > 0) {
            self.settle(OTHER);
        }
    }
}

/// How far a negotiation is.
#[derive(Debug, PartialEq, Eq)]
enum Agreed {
    On(String),
    NotYet,
    Never,
}

/// Which protocol the answering side of a negotiation took: the first message that is neither the header nor a refusal.
/// Messages are a length of one or two bytes and a line.
fn agreed(said: &[u8]) -> Agreed {
    let mut rest = said;
    loop {
        let (length, line) = match rest {
            [length, line @ ..] if *length < 0x80 => (usize::from(*length), line),
            [low, high, line @ ..] if *high < 0x80 => (usize::from(*low & 0x7f) | (usize::from(*high) << 7), line),
            [] | [_] => return Agreed::NotYet,
            [_, _, ..] => return Agreed::Never,
        };
        if length > MAX_NEGOTIATION {
            return Agreed::Never;
        }
        let Some((line, after)) = line.split_at_checked(length) else { return Agreed::NotYet };
        match line.strip_suffix(b"\n") {
            Some(HEADER | REFUSED) => rest = after,
            Some(name) => {
                let name = std::str::from_utf8(name).ok().filter(|name| name.starts_with('/'));
                return name.map_or(Agreed::Never, |name| Agreed::On(name.to_owned()));
            }
            None => return Agreed::Never,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(count)) = &read {
            self.count(buffer.get(..*count).unwrap_or_default(), true);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.count(bytes.get(..*count).unwrap_or_default(), false);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
