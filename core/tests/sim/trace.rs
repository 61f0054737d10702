//! What happened, in order: hashed whole, remembered at its end, and the place where a failure is reported.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many of the last events are shown with a failure.
const TAIL: usize = 60;

/// A peer has caught up by shards.
pub(crate) const CAUGHT_UP: &str = "caught up";

/// One thing that happened.
struct Event {
    at: Duration,
    kind: &'static str,
    numbers: Vec<u64>,
    text: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3}s {:<10} {:?} {}", self.at.as_secs_f64(), self.kind, self.numbers, self.text)
    }
}

struct Inner {
    hasher: blake3::Hasher,
    events: u64,
    /// How often a peer caught up by shards.
    catch_ups: u64,
    tail: VecDeque<Event>,
    /// What must not have been, and the events before it was noticed.
    failure: Option<(String, String)>,
}

impl Inner {
    fn tail(&self) -> String {
        self.tail.iter().map(|event| format!("{event}\n")).collect()
    }
}

/// The trace of one run.
pub(crate) struct Trace {
    began: Instant,
    inner: Mutex<Inner>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        let inner =
            Inner { hasher: blake3::Hasher::new(), events: 0, catch_ups: 0, tail: VecDeque::new(), failure: None };
        Self { began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Virtual time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes what happened; `body` is hashed and not kept.
    pub(crate) fn note(&self, kind: &'static str, numbers: &[u64], text: impl Into<String>, body: &[u8]) {
        let event = Event { at: self.now(), kind, numbers: numbers.to_vec(), text: text.into() };
        let mut inner = self.inner.lock();
        inner.hasher.update(&event.at.as_nanos().to_be_bytes()).update(kind.as_bytes());
        for number in numbers {
            inner.hasher.update(&number.to_be_bytes());
        }
        inner.hasher.update(event.text.as_bytes()).update(body);
        inner.events += 1;
        inner.catch_ups += u64::from(kind == CAUGHT_UP);
        if inner.tail.len() == TAIL {
            inner.tail.pop_front();
        }
        inner.tail.push_back(event);
    }

    /// How often a peer caught up by shards.
    pub(crate) fn catch_ups(&self) -> u64 {
        self.inner.lock().catch_ups
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.inner.lock().events
    }

    /// Something that must not be. The first report counts.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        let mut inner = self.inner.lock();
        if inner.failure.is_none() {
            inner.failure = Some((what.into(), inner.tail()));
        }
    }

    /// What must not have been, if anything.
    pub(crate) fn failure(&self) -> Option<String> {
        self.inner.lock().failure.as_ref().map(|(what, _)| what.clone())
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> String {
        self.inner.lock().hasher.finalize().to_hex()[..16].to_owned()
    }

    /// The last events, one a line: before the failure, if there was one.
    pub(crate) fn tail(&self) -> String {
        let inner = self.inner.lock();
        inner.failure.as_ref().map_or_else(|| inner.tail(), |(_, tail)| tail.clone())
    }
}
