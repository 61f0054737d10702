//! Ends connections, and all streams with them, in bounded time.
//!
//! A connection says goodbye before it is closed. Behind a cut nobody takes that, and for the minutes until the system gives up
//! the connection counts as established: calls and gossip choose it, also when the same peer has long come back over another.
//! And Yamux wakes the readers of its streams when a connection breaks, but not when this side closes it: they would wait for
//! ever, and hold what they hold.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::bandwidth::{Metered, Meters, Opened};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// A connection whose end does not wait for the other side longer than [`GOODBYE`], and ends its streams; what goes over
/// them is counted.
pub(super) struct Closing<M> {
    muxer: M,
    meters: Arc<Meters>,
    closed: CancellationToken,
    /// Since it is being closed.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<M> Closing<M> {
    pub(super) fn new(muxer: M, meters: Arc<Meters>) -> Self {
        Self { muxer, meters, closed: CancellationToken::new(), limit: None }
    }

    fn ending<S, E>(&self, stream: Poll<Result<S, E>>, opened: Opened) -> Poll<Result<Ending<Metered<S>>, E>> {
        stream.map_ok(|stream| Ending {
            stream: Metered::new(stream, opened, Arc::clone(&self.meters)),
            closed: Box::pin(self.closed.clone().cancelled_owned()),
        })
    }
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for Closing<M> {
    type Substream = Ending<Metered<M::Substream>>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let opened = Pin::new(&mut self.muxer).poll_inbound(cx);
        self.ending(opened, Opened::There)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let opened = Pin::new(&mut self.muxer).poll_outbound(cx);
        self.ending(opened, Opened::Here)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.closed.cancel();
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

/// A stream that ends with its connection.
pub(super) struct Ending<S> {
    stream: S,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Ending<S> {
    /// What the stream says, unless it waits and its connection has been closed.
    fn or_ended<T>(&mut self, said: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if said.is_pending() && self.closed.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was closed here",
            )));
        }
        said
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.or_ended(read, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_ended(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_ended(flushed, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_close(cx);
        self.or_ended(closed, cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::muxing::StreamMuxerExt;

    use super::*;

    /// Nobody is at the other end.
    struct Deaf;

    /// Nothing comes, and nothing can be sent.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl StreamMuxer for Deaf {
        type Substream = Silent;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<Self::Substream, io::Error>> {
            Poll::Ready(Ok(Silent))
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
        let mut connection = Closing::new(Deaf, Arc::default());
        let mut stream = futures::future::poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
        let mut other = futures::future::poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
        let mut byte = [0];
        let all = futures::future::join3(connection.close(), stream.read(&mut byte), other.write(&[0]));
        let (ended, read, written) = tokio::time::timeout(GOODBYE * 10, all).await.expect("all end");
        assert!(ended.is_ok() && began.elapsed() >= GOODBYE, "it was given time");
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
