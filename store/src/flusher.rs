//! The thread that flushes the write-ahead log: one flush for everybody who waits.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use cluster_core::consensus::log::TypeConfig;
use cluster_core::ports::StateError;
use cluster_types::ErrorChain;
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::blocking::Door;
use crate::error::Failed;
use crate::state::Database;

/// Appends waiting for a flush; openraft waits for its own appends long before. When it is full, appends wait.
const WAITING: usize = 1024;

enum Message {
    Flush(IOFlushed<TypeConfig>),
    Stop,
}

/// The flusher's handle.
#[derive(Debug)]
pub(crate) struct Flusher {
    messages: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    /// Starts the thread. The first failure goes to `failed`.
    pub(crate) fn start(door: Arc<Door<Database>>, failed: Arc<OnceLock<String>>) -> Result<Self, StateError> {
        let (sender, messages) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("log-flusher".to_owned())
            .spawn(move || run(&door, messages, &failed))
            .failed_to("start the flusher")?;
        Ok(Self { messages: Some(sender), thread: Mutex::new(Some(thread)) })
    }

    /// Has everything written so far flushed, and `callback` told.
    pub(crate) async fn flush(&self, callback: IOFlushed<TypeConfig>) -> io::Result<()> {
        let sender = self.messages.as_ref().ok_or_else(closed)?;
        sender.send(Message::Flush(callback)).await.map_err(|_| closed())
    }

    /// Ends the thread after what waits for it.
    pub(crate) async fn stop(&self) {
        if let Some(sender) = &self.messages {
            // It has ended already when nobody receives.
            let _ended = sender.send(Message::Stop).await;
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _joined = tokio::task::spawn_blocking(move || join(thread)).await;
        }
    }
}

impl Drop for Flusher {
    /// A store that is dropped without being closed leaves no thread behind that holds its folder.
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.get_mut().take() {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the flusher of the log panicked");
    }
}

fn closed() -> io::Error {
    io::Error::other(StateError::Closed)
}

fn run(door: &Door<Database>, mut messages: mpsc::Receiver<Message>, failed: &OnceLock<String>) {
    let mut stop = false;
    while !stop {
        let Some(first) = messages.blocking_recv() else { return };
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Flush(callback) => waiting.push(callback),
                Message::Stop => stop = true,
            }
            next = messages.try_recv().ok();
        }
        if !waiting.is_empty() {
            let end = flush(door, failed);
            for callback in waiting {
                callback.io_completed(end.clone().map_err(io::Error::other));
            }
        }
    }
}

fn flush(door: &Door<Database>, failed: &OnceLock<String>) -> Result<(), String> {
    if let Some(reason) = failed.get() {
        return Err(reason.clone());
    }
    door.call(|database| database.engine.flush()).map_err(|error| {
        let reason = ErrorChain(&error).to_string();
        tracing::error!(error = %reason, "the write-ahead log cannot be flushed");
        failed.get_or_init(|| reason).clone()
    })
}
