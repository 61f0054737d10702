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

use super::bitswap::{Bitswap, PeerHandles};
use super::streams::OpenError;
use super::swarm::Command;
use super::wire::{self, Message, Version, WireError};

/// A stream on which nothing comes for so long is closed; the other side opens another when it needs one.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A message that has begun must end within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that does not read for so long is not written to on this stream any more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Opening a stream takes a round trip or two.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// After so many failures in a row the peer is left alone until it connects again.
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
    #[error("cannot read the blocks to send")]
    Store(#[source] BlockError),
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
            }
            Ok::<(), BlockError>(())
        });
    }

    async fn read_from<R>(&self, peer: PeerId, handles: &PeerHandles, mut stream: R) -> Result<(), WireError>
    where
        R: AsyncRead + Unpin,
    {
        let late = || WireError::Io(std::io::ErrorKind::TimedOut.into());
        loop {
            let Ok(length) = timeout(IDLE, wire::read_length(&mut stream)).await else { return Ok(()) };
            let Some(length) = length? else { return Ok(()) };
            let _own = handles.bodies.acquire().await;
            let _shared = self.bodies.acquire().await;
            let body = wire::read_body(&mut stream, length);
            let message = timeout(BODY_TIMEOUT, body).await.map_err(|_elapsed| late())??;
            self.receive(peer, message).await;
        }
    }

    /// Writes to a peer until it is gone.
    pub(super) async fn write_to(self: Arc<Self>, peer: PeerId, handles: PeerHandles) {
        let mut stream = None;
        let mut failures = 0;
        let mut pause = FIRST_PAUSE;
        let work = async {
            loop {
                handles.wake.notified().await;
                while self.has_work(peer) {
                    match self.write_next(peer, &mut stream).await {
                        Ok(()) => (failures, pause) = (0, FIRST_PAUSE),
                        Err(error) => {
                            tracing::debug!(%peer, error = %ErrorChain(&error), "cannot write to a bitswap peer");
                            stream = None;
                            failures += 1;
                            if failures == MAX_FAILURES || matches!(error, WriteError::Open(OpenError::Unsupported)) {
                                self.mute(peer);
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

    async fn write_next(&self, peer: PeerId, stream: &mut Option<(Stream, Version)>) -> Result<(), WriteError> {
        if stream.is_none() {
            *stream = Some(self.open(peer).await?);
        }
        let Some((stream, version)) = stream else { return Ok(()) };
        match self.next_message(peer, *version).await.map_err(WriteError::Store)? {
            Some(message) => send(stream, &message).await,
            None => Ok(()),
        }
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

async fn send(stream: &mut Stream, message: &Message) -> Result<(), WriteError> {
    let frame = message.to_frame();
    let writing = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    match timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(WriteError::Io(error)),
        Err(_elapsed) => Err(WriteError::Stuck),
    }
}
