//! The three stages of stopping: the first signal asks, the second is warned about, the third ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a peer that was not given the time to stop.
const EXIT_AT_ONCE: i32 = 1;

/// SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from the system's defaults.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Cancels `stop` at the first signal, warns at the second, ends the process at the third. Never returns.
    pub async fn watch(mut self, stop: CancellationToken) -> std::convert::Infallible {
        self.next().await;
        tracing::info!("shutting down");
        stop.cancel();
        self.next().await;
        tracing::warn!("still shutting down; one more signal ends the process at once");
        self.next().await;
        tracing::error!("ended before the shutdown was complete");
        std::process::exit(EXIT_AT_ONCE);
    }
}
