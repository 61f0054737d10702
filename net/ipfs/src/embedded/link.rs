//! The streams to and from one peer.
//!
//! Each side writes to a stream of its own and reads the other's until its end; an answer never comes back on the
//! stream of the question. Readers never wait for the writer, so two peers that serve each other cannot lock up.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::BlockError;
use cluster_core::task::OnExit;
use cluster_types::{ErrorChain, PeerId};
use futures::{AsyncRead, AsyncWriteExt};
use libp2p::Stream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::bitswap::{Bitswap, PeerHandles, Welcome};
use super::streams::OpenError;
use super::swarm::Command;
use super::wire::{self, Version, WireError};

/// A stream on which nothing comes for so long is closed; the other side opens another when it needs one.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A message that has begun must go on within this time, and end within it and what [`SLOWEST`] allows.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes per second of the slowest peer that is waited for.
const SLOWEST: u32 = 32 * 1024;
/// A peer that does not read for so long is not written to on this stream any more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Opening a stream takes a round trip or two.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// After so many failures in a row the connection is closed.
const MAX_FAILURES: u32 = 6;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// No message could be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the stream broke")]
    Io(#[source] std::io::Error),
    #[error("the peer does not read")]
    Stuck,
}

/// What is on its way to a peer.
#[derive(Default)]
struct Outgoing {
    stream: Option<(Stream, Version)>,
    /// A message whose stream broke. It is sent once more: peers close streams that were silent for long, and that
    /// shows only here.
    unsent: Option<(Version, Vec<u8>)>,
}

impl Bitswap {
    /// Takes an inbound stream. When the peer has too many already, this one is refused by dropping it.
    pub(super) fn accept(self: &Arc<Self>, peer: PeerId, stream: Stream) {
        let handles = self.peer(peer);
        let Ok(slot) = Arc::clone(&handles.streams).try_acquire_owned() else {
            tracing::debug!(%peer, "too many bitswap streams");
            return;
        };
        let bitswap = Arc::clone(self);
        self.tasks.spawn("bitswap reader", OnExit::Continue, async move {
            let _slot = slot;
            let reading = bitswap.read_from(peer, &handles, stream);
            if let Some(Err(error)) = handles.gone.run_until_cancelled(reading).await {
                tracing::debug!(%peer, error = %ErrorChain(&error), "a bitswap stream is closed");
                match error {
                    WireError::Io(_) => {}
                    // No honest peer sends that.
                    WireError::TooLarge(_) | WireError::Malformed(_) => bitswap.disconnect(peer).await,
                }
            }
            Ok::<(), BlockError>(())
        });
    }

    async fn read_from<R>(&self, peer: PeerId, handles: &PeerHandles, mut stream: R) -> Result<(), WireError>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let Ok(length) = timeout(IDLE, wire::read_length(&mut stream)).await else { return Ok(()) };
            let Some(length) = length? else { return Ok(()) };
            let _own = handles.bodies.acquire().await;
            let mut body = Vec::new();
            // So much may be kept of every peer; only what is larger takes from what all share.
            wire::read_on(&mut stream, &mut body, length.min(wire::READ_PIECE), BODY_TIMEOUT).await?;
            let mut _shared = None;
            if body.len() < length {
                _shared = self.bodies_for(&peer).acquire().await.ok();
                let limit = BODY_TIMEOUT + Duration::from_secs(1) * u32::try_from(length).unwrap_or(u32::MAX) / SLOWEST;
                let rest = timeout(limit, wire::read_on(&mut stream, &mut body, length, BODY_TIMEOUT)).await;
                rest.map_err(|late| WireError::Io(late.into())).flatten()?;
            }
            if self.receive(peer, wire::decode(body.into())?).await == Welcome::Outstayed {
                tracing::debug!(%peer, "a peer that sends blocks nobody asked for is disconnected");
                self.disconnect(peer).await;
            }
        }
    }

    /// Writes to a peer until it is gone.
    pub(super) async fn write_to(self: Arc<Self>, peer: PeerId, handles: PeerHandles) {
        let mut outgoing = Outgoing::default();
        let mut failures = 0;
        let mut pause = FIRST_PAUSE;
        let work = async {
            loop {
                handles.wake.notified().await;
                while outgoing.unsent.is_some() || self.has_work(peer) {
                    match self.write_next(peer, &mut outgoing).await {
                        Ok(()) => (failures, pause) = (0, FIRST_PAUSE),
                        Err(error) => {
                            tracing::debug!(%peer, error = %ErrorChain(&error), "cannot write to a bitswap peer");
                            outgoing.stream = None;
                            failures += 1;
                            let unsupported = matches!(error, WriteError::Open(OpenError::Unsupported));
                            if unsupported || failures == MAX_FAILURES {
                                outgoing.unsent = None;
                                self.mute(peer);
                                if !unsupported {
                                    // A connection that only carries one way is worse than none: none is dialled again.
                                    self.disconnect(peer).await;
                                }
                                continue;
                            }
                            self.resend_all(peer);
                            tokio::time::sleep(pause).await;
                            pause *= 2;
                        }
                    }
                }
            }
        };
        let _stopped: Option<std::convert::Infallible> = handles.gone.run_until_cancelled(work).await;
    }

    async fn write_next(&self, peer: PeerId, outgoing: &mut Outgoing) -> Result<(), WriteError> {
        if outgoing.stream.is_none() {
            outgoing.stream = Some(self.open(peer).await?);
        }
        let Some((stream, version)) = &mut outgoing.stream else { return Ok(()) };
        if let Some((_, frame)) = outgoing.unsent.take().filter(|(written_for, _)| written_for == version) {
            return send(stream, &frame).await;
        }
        // One message of each peer in turn; whoever does not read makes room for others by the end of its timeout.
        let _serving = self.serving.acquire().await;
        let Some(message) = self.next_message(peer, *version).await else { return Ok(()) };
        let frame = message.to_frame();
        let sent = send(stream, &frame).await;
        outgoing.unsent = sent.is_err().then_some((*version, frame));
        sent
    }

    /// Closes the connections of a peer.
    async fn disconnect(&self, peer: PeerId) {
        drop(self.swarm.send(Command::Disconnect { peer }).await); // When the swarm is gone, so are they.
    }

    async fn open(&self, peer: PeerId) -> Result<(Stream, Version), WriteError> {
        let (reply, opened) = oneshot::channel();
        let asked = self.swarm.send(Command::OpenStream { peer, reply }).await;
        asked.map_err(|_stopped| OpenError::Failed)?;
        match timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(opened)) => Ok(opened?),
            Ok(Err(_)) | Err(_) => Err(OpenError::Failed.into()),
        }
    }
}

async fn send(stream: &mut Stream, frame: &[u8]) -> Result<(), WriteError> {
    let writing = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    match timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(WriteError::Io(error)),
        Err(_elapsed) => Err(WriteError::Stuck),
    }
}
