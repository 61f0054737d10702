//! Calls other peers.
//!
//! Each (peer, purpose) that is called has a *lane*: a task with a bounded queue that connects, opens a stream, writes
//! calls and hands out answers until the stream ends. The next call starts the next lane.
//!
//! **Invariant:** a call is written by whoever wins its [`Ticket`]: the lane claims it before the first byte, the
//! caller withdraws it when its deadline is over. So a withdrawn call has never been seen by the peer, and a claimed
//! one never goes out again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{MAX_MESSAGE, Purpose, TransportError};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{BoxError, PeerId};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;

use super::codec::{Frame, Kind, read_frame, write_frame};
use super::protocol_of;
use crate::swarm::SwarmHandle;

/// Calls that wait for a lane to write them; when it is full, callers wait within their deadlines.
const LANE_QUEUE: usize = 64;
/// Calls of one lane that wait for answers.
const MAX_PENDING: usize = 4_096;
/// A frame that cannot be written in this time ends its stream.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Small frames are gathered up to this size.
const WRITE_BUFFER: usize = 16 * 1024;

/// Decides who has a call: its caller or its lane.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const CLAIMED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn claim(&self) -> bool {
        self.take(Self::CLAIMED)
    }

    /// Whether the call has not been and will not be written.
    fn withdraw(&self) -> bool {
        self.take(Self::WITHDRAWN) || self.0.load(Ordering::Acquire) == Self::WITHDRAWN
    }

    fn take(&self, by: u8) -> bool {
        self.0.compare_exchange(Self::WAITING, by, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Withdraws a call whose caller went away.
struct WithdrawOnDrop(Arc<Ticket>);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// How a call ended without an answer.
#[derive(Clone, Debug)]
enum End {
    NotSent(Arc<str>),
    Broken,
    Overloaded,
}

/// The cause of [`TransportError::NotSent`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotSentBecause(Arc<str>);

type Reply = oneshot::Sender<Result<Bytes, End>>;

struct Call {
    body: Bytes,
    ticket: Arc<Ticket>,
    reply: Reply,
}

struct Lane {
    queue: mpsc::Sender<Call>,
    number: u64,
}

/// The calling side of the `Transport` port.
pub(crate) struct Calls {
    local: PeerId,
    lanes: Mutex<HashMap<(PeerId, Purpose), Lane>>,
    next_lane: AtomicU64,
    control: libp2p_stream::Control,
    swarm: SwarmHandle,
    tasks: TaskGroup,
    stop: CancellationToken,
    dial_timeout: Duration,
}

impl Calls {
    pub(crate) fn new(
        local: PeerId,
        control: libp2p_stream::Control,
        swarm: SwarmHandle,
        tasks: TaskGroup,
        stop: CancellationToken,
        dial_timeout: Duration,
    ) -> Arc<Self> {
        let lanes = Mutex::new(HashMap::new());
        Arc::new(Self { local, lanes, next_lane: AtomicU64::new(0), control, swarm, tasks, stop, dial_timeout })
    }

    /// Sends `body` and waits at most `timeout` for the answer.
    pub(crate) async fn call(
        self: &Arc<Self>,
        peer: PeerId,
        purpose: Purpose,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let size = body.len();
        if size > MAX_MESSAGE {
            return Err(TransportError::TooLarge { size });
        }
        if peer == self.local {
            return Err(not_sent(peer, "a peer does not call itself".into()));
        }
        let ticket = Arc::new(Ticket::default());
        let _withdraw = WithdrawOnDrop(Arc::clone(&ticket));
        let (reply, answer) = oneshot::channel();
        let call = Call { body, ticket: Arc::clone(&ticket), reply };
        let work = async {
            self.enqueue(peer, purpose, call).await;
            answer.await
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(Ok(body))) => Ok(body),
            Ok(Ok(Err(End::NotSent(cause)))) => Err(not_sent(peer, cause)),
            Ok(Ok(Err(End::Overloaded))) => Err(TransportError::Overloaded { peer }),
            Ok(Ok(Err(End::Broken))) => Err(TransportError::Broken { peer }),
            Ok(Err(_lane_is_gone)) if ticket.withdraw() => Err(not_sent(peer, "the network is shutting down".into())),
            Ok(Err(_lane_is_gone)) => Err(TransportError::Broken { peer }),
            Err(_elapsed) if ticket.withdraw() => {
                Err(not_sent(peer, format!("it could not be sent within {timeout:?}").into()))
            }
            Err(_elapsed) => Err(TransportError::Timeout { peer, after: timeout }),
        }
    }

    /// Hands a call to its lane. Should the lane be ending, the next one gets it: it has not been claimed.
    async fn enqueue(self: &Arc<Self>, peer: PeerId, purpose: Purpose, mut call: Call) {
        while !self.stop.is_cancelled() {
            let (queue, number) = self.lane(peer, purpose);
            match queue.send(call).await {
                Ok(()) => return,
                Err(mpsc::error::SendError(returned)) => {
                    call = returned;
                    self.remove_lane(peer, purpose, number);
                }
            }
        }
    }

    fn lane(self: &Arc<Self>, peer: PeerId, purpose: Purpose) -> (mpsc::Sender<Call>, u64) {
        let mut lanes = self.lanes.lock();
        match lanes.entry((peer, purpose)) {
            Entry::Occupied(lane) => (lane.get().queue.clone(), lane.get().number),
            Entry::Vacant(vacant) => {
                let number = self.next_lane.fetch_add(1, Ordering::Relaxed);
                let (queue, calls) = mpsc::channel(LANE_QUEUE);
                vacant.insert(Lane { queue: queue.clone(), number });
                let client = Arc::clone(self);
                self.tasks.spawn("calls to a peer", OnExit::Continue, async move {
                    client.run_lane(peer, purpose, number, calls).await;
                    Ok::<(), BoxError>(())
                });
                (queue, number)
            }
        }
    }

    fn remove_lane(&self, peer: PeerId, purpose: Purpose, number: u64) {
        if let Entry::Occupied(lane) = self.lanes.lock().entry((peer, purpose))
            && lane.get().number == number
        {
            lane.remove();
        }
    }

    async fn run_lane(&self, peer: PeerId, purpose: Purpose, number: u64, mut calls: mpsc::Receiver<Call>) {
        let work = async {
            match self.open(peer, purpose).await {
                Ok(stream) => drive(stream, &mut calls).await,
                Err(cause) => cause,
            }
        };
        let cause = tokio::select! {
            () = self.stop.cancelled() => "the network is shutting down".into(),
            cause = work => cause,
        };
        tracing::debug!(%peer, purpose = purpose.as_str(), %cause, "a stream for calls has ended");
        self.remove_lane(peer, purpose, number);
        calls.close();
        while let Some(call) = calls.recv().await {
            // Claiming keeps the caller's view in step: from here on nobody else writes it.
            if call.ticket.claim() {
                let _unheard = call.reply.send(Err(End::NotSent(Arc::clone(&cause))));
            }
        }
    }

    async fn open(&self, peer: PeerId, purpose: Purpose) -> Result<libp2p::Stream, Arc<str>> {
        let opening = async {
            self.swarm.connect(peer).await?;
            let mut control = self.control.clone();
            control
                .open_stream(peer, protocol_of(purpose))
                .await
                .map_err(|error| Arc::<str>::from(format!("cannot open a stream: {error}")))
        };
        tokio::time::timeout(self.dial_timeout, opening)
            .await
            .unwrap_or_else(|_elapsed| Err(format!("no connection within {:?}", self.dial_timeout).into()))
    }
}

/// Writes calls and hands out answers until the stream ends; says why it did.
async fn drive(stream: libp2p::Stream, calls: &mut mpsc::Receiver<Call>) -> Arc<str> {
    let (reader, writer) = tokio::io::split(stream.compat());
    let pending = Pending::default();
    let end = tokio::select! {
        end = write_calls(BufWriter::with_capacity(WRITE_BUFFER, writer), calls, &pending) => end,
        end = read_answers(BufReader::new(reader), &pending) => end,
    };
    pending.break_all();
    match end {
        Ok(()) => "the stream has ended".into(),
        Err(error) => format!("the stream broke: {error}").into(),
    }
}

async fn write_calls<W: AsyncWrite + Unpin>(
    mut writer: W,
    calls: &mut mpsc::Receiver<Call>,
    pending: &Pending,
) -> io::Result<()> {
    let mut next_id = 0_u64;
    while let Some(call) = calls.recv().await {
        if !call.ticket.claim() {
            continue;
        }
        next_id += 1;
        let frame = Frame { id: next_id, kind: Kind::Request, body: call.body };
        if let Err(reply) = pending.insert(next_id, call.reply) {
            let _unheard = reply.send(Err(End::NotSent("too many calls wait for answers of the peer".into())));
            continue;
        }
        let written = async {
            write_frame(&mut writer, &frame).await?;
            if calls.is_empty() { writer.flush().await } else { Ok(()) }
        };
        tokio::time::timeout(WRITE_TIMEOUT, written).await.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn read_answers<R: AsyncRead + Unpin>(mut reader: R, pending: &Pending) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut reader).await? {
        let outcome = match frame.kind {
            Kind::Answer => Ok(frame.body),
            Kind::Overloaded => Err(End::Overloaded),
            Kind::Unanswerable => Err(End::Broken),
            Kind::Request => return Err(io::Error::new(io::ErrorKind::InvalidData, "a request came as an answer")),
        };
        // An answer to a call nobody waits for any more is dropped.
        if let Some(reply) = pending.remove(frame.id) {
            let _unheard = reply.send(outcome);
        }
    }
    Ok(())
}

/// Calls that have been written and wait for answers.
#[derive(Default)]
struct Pending(Mutex<HashMap<u64, Reply>>);

impl Pending {
    /// Gives the reply back when there is no room.
    fn insert(&self, id: u64, reply: Reply) -> Result<(), Reply> {
        let mut waiting = self.0.lock();
        if waiting.len() >= MAX_PENDING {
            waiting.retain(|_, reply| !reply.is_closed());
        }
        if waiting.len() >= MAX_PENDING {
            return Err(reply);
        }
        waiting.insert(id, reply);
        Ok(())
    }

    fn remove(&self, id: u64) -> Option<Reply> {
        self.0.lock().remove(&id)
    }

    fn break_all(&self) {
        for (_, reply) in self.0.lock().drain() {
            let _unheard = reply.send(Err(End::Broken));
        }
    }
}

fn not_sent(peer: PeerId, cause: Arc<str>) -> TransportError {
    TransportError::NotSent { peer, cause: Box::new(NotSentBecause(cause)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_either_claimed_or_withdrawn() {
        let ticket = Ticket::default();
        assert!(ticket.claim());
        assert!(!ticket.withdraw());
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        assert!(ticket.withdraw(), "asking again changes nothing");
        assert!(!ticket.claim());
    }

    #[test]
    fn calls_nobody_waits_for_make_room_for_others() {
        let pending = Pending::default();
        for id in 0..MAX_PENDING as u64 {
            let (reply, _) = oneshot::channel();
            pending.insert(id, reply).unwrap();
        }
        let (reply, _answer) = oneshot::channel();
        assert!(pending.insert(u64::MAX, reply).is_ok());
        assert_eq!(pending.0.lock().len(), 1);
    }
}
