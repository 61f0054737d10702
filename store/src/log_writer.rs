//! The thread that writes the raft log: everything that waits goes out in one batch and one flush.
//!
//! **Invariant:** votes, entries, truncations and purges reach the write-ahead log in the order of the calls.
//! **Invariant:** a failure is final: what is on the disk is not known any more, so everything later fails too.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use cluster_core::ports::StateError;
use cluster_types::ErrorChain;
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use tokio::sync::{mpsc, oneshot};

use crate::blocking::Door;
use crate::engine::Engine;
use crate::error::Failed;
use crate::state::Database;

/// Writes that may wait; openraft waits for its own long before. When it is full, callers wait.
const WAITING: usize = 1024;

/// Adds to a batch what is to be written.
pub(crate) type Fill = Box<dyn FnOnce(&Engine, &mut WriteBatch) -> Result<(), StateError> + Send>;

/// Is told how a write ended.
pub(crate) type Told = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Something to write, and who waits for it.
pub(crate) struct Write {
    /// What.
    pub(crate) fill: Fill,
    /// Is told when it survives the process.
    pub(crate) written: Option<Told>,
    /// Is told when it survives a power cut.
    pub(crate) flushed: Option<Told>,
}

/// When a write has ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// When it survives the process.
    Written,
    /// When it survives a power cut.
    Flushed,
}

enum Message {
    Write(Write),
    Stop,
}

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct LogWriter {
    messages: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failed: Arc<OnceLock<String>>,
}

impl LogWriter {
    /// Starts the thread.
    pub(crate) fn start(door: Arc<Door<Database>>) -> Result<Self, StateError> {
        let (sender, messages) = mpsc::channel(WAITING);
        let failed = Arc::new(OnceLock::new());
        let work = Work { door, failed: Arc::clone(&failed) };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || work.run(messages))
            .failed_to("start the writer of the log")?;
        Ok(Self { messages: Some(sender), thread: Mutex::new(Some(thread)), failed })
    }

    /// Has something written after everything that was asked for before.
    pub(crate) async fn begin(&self, write: Write) -> io::Result<()> {
        self.refuse_after_failure()?;
        let sender = self.messages.as_ref().ok_or_else(closed)?;
        sender.send(Message::Write(write)).await.map_err(|_ended| closed())
    }

    /// The same, and waits for its end.
    pub(crate) async fn write<F>(&self, ends: Ends, fill: F) -> io::Result<()>
    where
        F: FnOnce(&Engine, &mut WriteBatch) -> Result<(), StateError> + Send + 'static,
    {
        let (told, end) = oneshot::channel();
        // Whoever does not wait any more need not know.
        let told: Told = Box::new(move |end| drop(told.send(end)));
        let (written, flushed) = if ends == Ends::Written { (Some(told), None) } else { (None, Some(told)) };
        self.begin(Write { fill: Box::new(fill), written, flushed }).await?;
        end.await.map_err(|_ended| closed())?.map_err(io::Error::other)
    }

    /// Fails once a write or a flush has failed.
    pub(crate) fn refuse_after_failure(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())))
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

impl Drop for LogWriter {
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
        tracing::error!("the writer of the log panicked");
    }
}

fn closed() -> io::Error {
    io::Error::other(StateError::Closed)
}

struct Work {
    door: Arc<Door<Database>>,
    failed: Arc<OnceLock<String>>,
}

impl Work {
    fn run(self, mut messages: mpsc::Receiver<Message>) {
        let mut stop = false;
        while !stop {
            let Some(first) = messages.blocking_recv() else { return };
            let mut writes = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Write(write) => writes.push(write),
                    Message::Stop => stop = true,
                }
                next = messages.try_recv().ok();
            }
            if !writes.is_empty() {
                self.carry_out(writes);
            }
        }
    }

    fn carry_out(&self, writes: Vec<Write>) {
        let (mut fills, mut written, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            fills.push(write.fill);
            written.extend(write.written);
            flushed.extend(write.flushed);
        }
        let mut end = self.once(|database| {
            let mut batch = WriteBatch::default();
            for fill in fills {
                fill(&database.engine, &mut batch)?;
            }
            database.engine.write(batch)
        });
        for told in written {
            told(end.clone());
        }
        if !flushed.is_empty() && end.is_ok() {
            end = self.once(|database| database.engine.flush());
        }
        for told in flushed {
            told(end.clone());
        }
    }

    /// Does something that is never tried again once it has failed.
    fn once(&self, step: impl FnOnce(&Database) -> Result<(), StateError>) -> Result<(), String> {
        if let Some(reason) = self.failed.get() {
            return Err(reason.clone());
        }
        self.door.call(step).map_err(|error| {
            let reason = ErrorChain(&error).to_string();
            tracing::error!(error = %reason, "the raft log cannot be written");
            self.failed.get_or_init(|| reason).clone()
        })
    }
}
