//! Answers calls of other peers.
//!
//! **Invariant:** the accept loop only spawns: libp2p drops inbound streams while nobody takes them.
//! **Invariant:** what one peer can have this one do at the same time is bounded in streams, calls and bytes; what is
//! more is answered with "overloaded" before its body is kept. All peers together have a bound on bytes, too, and
//! those that this peer does not remember have a smaller one of their own: whoever merely knows the secret cannot take
//! the room of members.
//! **Invariant:** room is held for a body that comes, or for the time of its deadline: never for a promise alone.
//! **Invariant:** a handler that has begun runs to its end, even when the caller is gone.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{CallHandler, MAX_MESSAGE, Purpose};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{BoxError, PeerId};
use futures::{FutureExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;

use super::codec::{Frame, Head, Kind, read_body, read_head, skip_body, write_frame};
use super::{index_of, protocol_of};
use crate::swarm::Shared;

/// Streams of one peer and purpose: one in use, some that are dying.
const MAX_STREAMS: usize = 4;
/// Calls of one peer that are handled at once: append, control, call, bulk.
const MAX_CALLS: [usize; 4] = [64, 64, 256, 16];
/// Request bytes of one peer that are being read or handled at once, in KiB: eight of the largest.
const MAX_KIB: usize = 64 * 1024;
/// The same for all remembered peers together.
const MAX_KIB_OF_MEMBERS: usize = 512 * 1024;
/// The same for all others together: followers, members not heard of yet, and whoever else knows the secret.
const MAX_KIB_OF_STRANGERS: usize = 128 * 1024;
/// A body must have come after this time, and [`SLOWEST`] more for each byte.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes per second of the slowest connection that is waited for.
const SLOWEST: u32 = 128 * 1024;
/// Refusals that may wait to be written; when it is full, the peer is not read from until it reads.
const REFUSALS: usize = 64;
/// A frame that cannot be written in this time ends its stream.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Small frames are gathered up to this size.
const WRITE_BUFFER: usize = 16 * 1024;
/// Budgets of peers that are gone are thrown away when there are this many.
const SWEEP_BUDGETS: usize = 1_024;

/// What one peer may use.
struct Budget {
    streams: [Arc<Semaphore>; 4],
    calls: [Arc<Semaphore>; 4],
    kib: Arc<Semaphore>,
}

impl Budget {
    fn new() -> Self {
        Self {
            streams: std::array::from_fn(|_| Arc::new(Semaphore::new(MAX_STREAMS))),
            calls: MAX_CALLS.map(|calls| Arc::new(Semaphore::new(calls))),
            kib: Arc::new(Semaphore::new(MAX_KIB)),
        }
    }

    /// Room for a call with a body of `size` bytes, here and in the pool shared with others.
    fn admit(self: &Arc<Self>, pool: &Arc<Semaphore>, purpose: Purpose, size: usize) -> Option<Admission> {
        let call = Arc::clone(&self.calls[index_of(purpose)]).try_acquire_owned().ok()?;
        let kib = u32::try_from(size / 1024 + 1).ok()?;
        let bytes = Arc::clone(&self.kib).try_acquire_many_owned(kib).ok()?;
        let bytes_of_pool = Arc::clone(pool).try_acquire_many_owned(kib).ok()?;
        Some(Admission { _call: call, _bytes: bytes, _bytes_of_pool: bytes_of_pool, _budget: Arc::clone(self) })
    }
}

/// Held until the answer is written. It keeps the budget alive: a peer that closes its streams while calls run does
/// not get a fresh one.
struct Admission {
    _call: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    _bytes_of_pool: OwnedSemaphorePermit,
    _budget: Arc<Budget>,
}

/// A frame on its way out.
struct Outgoing {
    frame: Frame,
    _admission: Option<Admission>,
}

/// The answering side of the `Transport` port.
pub(crate) struct Server {
    handler: RwLock<Option<Arc<dyn CallHandler>>>,
    budgets: Mutex<HashMap<PeerId, Weak<Budget>>>,
    kib_of_members: Arc<Semaphore>,
    kib_of_strangers: Arc<Semaphore>,
    shared: Arc<Shared>,
    tasks: TaskGroup,
    stop: CancellationToken,
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, tasks: TaskGroup, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            handler: RwLock::new(None),
            budgets: Mutex::new(HashMap::new()),
            kib_of_members: Arc::new(Semaphore::new(MAX_KIB_OF_MEMBERS)),
            kib_of_strangers: Arc::new(Semaphore::new(MAX_KIB_OF_STRANGERS)),
            shared,
            tasks,
            stop,
        })
    }

    /// From now on `handler` answers.
    pub(crate) fn serve(&self, handler: Arc<dyn CallHandler>) {
        *self.handler.write() = Some(handler);
    }

    /// Takes inbound streams of every purpose until told to stop.
    pub(crate) fn accept(
        self: &Arc<Self>,
        control: &mut libp2p_stream::Control,
    ) -> Result<(), libp2p_stream::AlreadyRegistered> {
        for purpose in Purpose::ALL {
            let mut incoming = control.accept(protocol_of(purpose))?;
            let server = Arc::clone(self);
            self.tasks.spawn("accept calls", OnExit::Continue, async move {
                loop {
                    tokio::select! {
                        () = server.stop.cancelled() => return Ok::<(), BoxError>(()),
                        stream = incoming.next() => match stream {
                            Some((peer, stream)) => server.admit(peer, purpose, stream),
                            None => return Ok(()),
                        },
                    }
                }
            });
        }
        Ok(())
    }

    fn admit(self: &Arc<Self>, peer: PeerId, purpose: Purpose, stream: libp2p::Stream) {
        let budget = self.budget_of(peer);
        let Ok(permit) = Arc::clone(&budget.streams[index_of(purpose)]).try_acquire_owned() else {
            tracing::debug!(%peer, purpose = purpose.as_str(), "refused one stream too many");
            return;
        };
        let server = Arc::clone(self);
        self.tasks.spawn("answer calls", OnExit::Continue, async move {
            let _permit = permit;
            if let Err(error) = server.serve_stream(peer, purpose, &budget, stream).await {
                tracing::debug!(%peer, purpose = purpose.as_str(), %error, "closed a peer's stream");
            }
            Ok::<(), BoxError>(())
        });
    }

    fn budget_of(&self, peer: PeerId) -> Arc<Budget> {
        let mut budgets = self.budgets.lock();
        if let Some(budget) = budgets.get(&peer).and_then(Weak::upgrade) {
            return budget;
        }
        if budgets.len() >= SWEEP_BUDGETS {
            budgets.retain(|_, budget| budget.strong_count() > 0);
        }
        let budget = Arc::new(Budget::new());
        budgets.insert(peer, Arc::downgrade(&budget));
        budget
    }

    /// The bytes that a peer shares with others of its kind.
    fn pool_of(&self, peer: &PeerId) -> &Arc<Semaphore> {
        if self.shared.book.lock().is_remembered(peer) { &self.kib_of_members } else { &self.kib_of_strangers }
    }

    async fn serve_stream(
        &self,
        peer: PeerId,
        purpose: Purpose,
        budget: &Arc<Budget>,
        stream: libp2p::Stream,
    ) -> io::Result<()> {
        let (reader, writer) = tokio::io::split(stream.compat());
        let (answers, outgoing) = mpsc::channel(MAX_CALLS[index_of(purpose)] + REFUSALS);
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            end = self.read_requests(peer, purpose, budget, BufReader::new(reader), answers) => end,
            end = write_answers(BufWriter::with_capacity(WRITE_BUFFER, writer), outgoing) => end,
        }
    }

    async fn read_requests<R: AsyncRead + Unpin>(
        &self,
        peer: PeerId,
        purpose: Purpose,
        budget: &Arc<Budget>,
        mut reader: R,
        answers: mpsc::Sender<Outgoing>,
    ) -> io::Result<()> {
        while let Some(head) = read_head(&mut reader).await? {
            if head.kind != Kind::Request {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer came as a request"));
            }
            let handler = self.handler.read().clone();
            let admitted = handler.zip(budget.admit(self.pool_of(&peer), purpose, head.size));
            let Some((handler, admission)) = admitted else {
                in_time(head, skip_body(&mut reader, head)).await?;
                let refusal = Frame { id: head.id, kind: Kind::Overloaded, body: Bytes::new() };
                // When the peer does not read its answers, nothing more is read from it.
                answers
                    .send(Outgoing { frame: refusal, _admission: None })
                    .await
                    .map_err(|_| io::Error::other("answers cannot be written any more"))?;
                continue;
            };
            let body = in_time(head, read_body(&mut reader, head)).await?;
            let answers = answers.clone();
            self.tasks.spawn("handle a call", OnExit::Continue, async move {
                let frame = handle(&*handler, peer, purpose, head, body).await;
                // The stream may have ended; the caller has been told by that.
                let _unheard = answers.send(Outgoing { frame, _admission: Some(admission) }).await;
                Ok::<(), BoxError>(())
            });
        }
        // The peer sends nothing more, and with the stream it gives up the answers.
        Ok(())
    }
}

/// Waits for a body as long as its size deserves.
async fn in_time<T>(head: Head, reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let size = u32::try_from(head.size).unwrap_or(u32::MAX);
    let limit = BODY_TIMEOUT + Duration::from_secs(1) * size / SLOWEST;
    tokio::time::timeout(limit, reading).await.map_err(io::Error::from)?
}

/// Has a call handled. A panic, or an answer too large to send, is told to the caller as such.
async fn handle(handler: &dyn CallHandler, peer: PeerId, purpose: Purpose, request: Head, body: Bytes) -> Frame {
    let outcome = AssertUnwindSafe(handler.handle(peer, purpose, body)).catch_unwind().await;
    let unanswerable = Frame { id: request.id, kind: Kind::Unanswerable, body: Bytes::new() };
    match outcome {
        Ok(body) if body.len() <= MAX_MESSAGE => Frame { id: request.id, kind: Kind::Answer, body },
        Ok(body) => {
            tracing::error!(%peer, purpose = purpose.as_str(), size = body.len(), "an answer is too large to send");
            unanswerable
        }
        Err(_panic) => {
            tracing::error!(%peer, purpose = purpose.as_str(), "handling a call panicked");
            unanswerable
        }
    }
}

async fn write_answers<W: AsyncWrite + Unpin>(mut writer: W, mut outgoing: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    while let Some(answer) = outgoing.recv().await {
        let written = async {
            write_frame(&mut writer, &answer.frame).await?;
            if outgoing.is_empty() { writer.flush().await } else { Ok(()) }
        };
        tokio::time::timeout(WRITE_TIMEOUT, written).await.map_err(io::Error::other)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::AddressBook;

    fn members() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_KIB_OF_MEMBERS))
    }

    struct Echo;

    #[async_trait::async_trait]
    impl CallHandler for Echo {
        async fn handle(&self, _from: PeerId, _purpose: Purpose, body: Bytes) -> Bytes {
            body
        }
    }

    fn server() -> Arc<Server> {
        let shared = Arc::new(Shared::new(AddressBook::new(PeerId::random())));
        let server = Server::new(shared, TaskGroup::new(), CancellationToken::new());
        server.serve(Arc::new(Echo));
        server
    }

    #[test]
    fn one_purpose_cannot_use_up_the_calls_of_another() {
        let (budget, pool) = (Arc::new(Budget::new()), members());
        let held: Vec<_> = std::iter::from_fn(|| budget.admit(&pool, Purpose::Bulk, 10)).collect();
        assert_eq!(held.len(), MAX_CALLS[index_of(Purpose::Bulk)]);
        assert!(budget.admit(&pool, Purpose::Control, 10).is_some());
    }

    #[test]
    fn bytes_being_handled_are_bounded_and_given_back() {
        let (budget, pool) = (Arc::new(Budget::new()), members());
        let held: Vec<_> = std::iter::from_fn(|| budget.admit(&pool, Purpose::Call, MAX_MESSAGE)).collect();
        assert!(held.len() < 9, "{}", held.len());
        drop(held);
        assert!(budget.admit(&pool, Purpose::Call, MAX_MESSAGE).is_some());
    }

    #[test]
    fn a_peer_that_closes_its_stream_while_a_call_runs_keeps_its_budget() {
        let (server, peer) = (server(), PeerId::random());
        let budget = server.budget_of(peer);
        let running = budget.admit(server.pool_of(&peer), Purpose::Call, 10);
        let address = Arc::as_ptr(&budget);
        drop(budget);
        assert_eq!(Arc::as_ptr(&server.budget_of(peer)), address);
        drop(running);
        assert!(server.budgets.lock()[&peer].upgrade().is_none(), "nothing runs, so nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_ends_the_stream() {
        let (server, peer) = (server(), PeerId::random());
        let (mut wire, reader) = tokio::io::duplex(1024);
        let head = [0, 0x80, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        wire.write_all(&head).await.unwrap();
        let (answers, _outgoing) = mpsc::channel(1);
        let budget = server.budget_of(peer);
        let reading = server.read_requests(peer, Purpose::Call, &budget, reader, answers);
        let end = tokio::time::timeout(Duration::from_secs(600), reading).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(server.kib_of_strangers.available_permits(), MAX_KIB_OF_STRANGERS);
    }
}
