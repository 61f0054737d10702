//! Ends connections in bounded time.
//!
//! A connection says goodbye before it is closed. Behind a cut nobody takes that, and for the minutes until the system gives up
//! the connection counts as established: calls and gossip choose it, also when the same peer has long come back over another.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::Sleep;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection whose end does not wait for the other side longer than [`GOODBYE`].
pub(super) struct Closing<M> {
    muxer: M,
    /// Since it is being closed.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<M> Closing<M> {
    pub(super) fn new(muxer: M) -> Self {
        Self { muxer, limit: None }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Closing<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(cx) {
            return Poll::Ready(closed);
        }
        let limit = self.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(GOODBYE)));
        limit.poll_unpin(cx).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures::io::Cursor;
    use libp2p::core::muxing::StreamMuxerExt;

    use super::*;

    /// Nobody is at the other end.
    struct Deaf;

    impl StreamMuxer for Deaf {
        type Substream = Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<Self::Substream, io::Error>> {
            Poll::Pending
        }

        fn poll_outbound(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<Self::Substream, io::Error>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
            Poll::Pending
        }

        fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, io::Error>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_also_when_nobody_takes_the_goodbye() {
        let began = tokio::time::Instant::now();
        let ended = tokio::time::timeout(GOODBYE * 10, Closing::new(Deaf).close()).await;
        assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
        assert!(began.elapsed() >= GOODBYE, "it was given time");
    }
}
