//! Uploads: a multipart body becomes events for the import, its outputs become the answer.
//!
//! The import and the reading of the body run in one task of their own. The answer is only a view of it.
//!
//! **Invariant:** the import sees the end of its events only if the whole upload was read and understood. Whatever
//! else happens (a broken body, a client that goes away, a panic), an error is put into the events first; room for
//! it is kept from the start.
//! **Invariant:** no more of the upload is in memory than the event queue holds.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cluster_core::add::ImportPlan;
use cluster_core::cluster::{ADD_QUEUE, AddEvent, ClusterService, Listing, ServiceResult};
use cluster_types::{AddParams, AddedOutput, ErrorClass, WireError};
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::Patience;
use crate::error::Failure;
use crate::json;
use crate::reply::{self, Body, Reply};
use crate::stream::{self, Shape};
use crate::writes::{LISTING_QUEUE, Writes};
use cluster_core::add::multipart::{self, Multipart, MultipartError, PartHead};

/// Tells clients of the original that outputs come as they are made.
const CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
/// The longest path of an entry, and the longest target of a link.
const MAX_PATH: usize = 4096;
/// The longest answer that is collected instead of streamed: some 200,000 entries.
const MAX_COLLECTED: usize = 32 * 1024 * 1024;
/// How much of a body that nobody wants is read and dropped, so that the client gets to read the answer.
const MAX_DRAINED: usize = 1024 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How much of an upload is read and dropped after its import failed. It was wanted, so it may be large, and most clients read
/// nothing before they have sent all of it.
const MAX_ABANDONED: usize = 1024 * 1024 * 1024;
/// How long that may take.
const ABANDONED_TIME: Duration = Duration::from_secs(30);

/// What the reader of the upload and the writer of the answer share.
#[derive(Debug, Default)]
struct Progress {
    /// Why the upload itself is wrong; then this is the answer.
    wrong: OnceLock<Failure>,
    /// Cancelled when the import has ended.
    imported: CancellationToken,
}

/// The body of a request until somebody reads it.
pub(crate) struct Unread {
    body: Option<Incoming>,
    /// When it must be there.
    due: Instant,
}

impl Unread {
    /// `body`, which may take its time from now on.
    pub(crate) fn new(body: Incoming, patience: Patience) -> Self {
        Self { body: Some(body), due: Instant::now() + patience.body }
    }

    /// When it must be there.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// How many bytes it has at least.
    pub(crate) fn least_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    /// The body, for the one who reads it.
    pub(crate) fn take(&mut self) -> Incoming {
        self.body.take().expect("a request has one handler, which takes its body once")
    }

    /// Reads and drops it if nobody has read it: a client that is cut off while it sends may never see the answer.
    pub(crate) async fn drain(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let mut unread = Multipart::new(Box::pin(patient(body, DRAIN_TIME, Instant::now() + DRAIN_TIME)), "");
        let _ = tokio::time::timeout(DRAIN_TIME, unread.drain(MAX_DRAINED)).await;
    }
}

/// What an upload may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long it may be silent.
    pub(crate) idle: Duration,
    /// Its bytes.
    pub(crate) most: u64,
}

/// Refuses parameters that no import can carry out: the client's fault, unlike what the import finds out later.
pub(crate) fn check(params: &AddParams) -> Result<(), Failure> {
    ImportPlan::check(params).map(drop).map_err(|error| Failure::bad_request(error.message))
}

/// The boundary of an upload, by its content type.
pub(crate) fn boundary(content_type: Option<&str>) -> Result<String, Failure> {
    multipart::boundary(content_type.unwrap_or_default()).map_err(|error| bad(&error))
}

/// An import that was begun.
pub(crate) struct Uploading {
    outputs: Listing<AddedOutput>,
    progress: Arc<Progress>,
    streamed: bool,
}

/// Reads `body` and has it imported, in a task of its own.
pub(crate) fn start(
    writes: &Writes,
    service: &Arc<dyn ClusterService>,
    limits: Limits,
    params: AddParams,
    boundary: &str,
    body: &mut Unread,
) -> Result<Uploading, Failure> {
    if body.least_bytes() > limits.most {
        return Err(too_large(limits.most));
    }
    let permit = writes.permit()?;
    let streamed = params.stream_channels;
    let (events, received) = mpsc::channel(ADD_QUEUE + 1);
    let spare = events.clone().try_reserve_owned().expect("a new channel has room");
    let (outputs, listing) = mpsc::channel(LISTING_QUEUE);
    let (end, ended) = oneshot::channel();
    let progress = Arc::new(Progress::default());
    let due = body.due;
    let data = bounded(patient(body.take(), limits.idle, due), limits.most, Arc::clone(&progress));
    let mut upload = Upload { parts: Multipart::new(Box::pin(data), boundary), events, spare: Some(spare) };
    let service = Arc::clone(service);
    let shared = Arc::clone(&progress);
    writes.spawn(permit, async move {
        let import = async {
            match service.add(params, received).await {
                Ok(mut imported) => {
                    while let Some(output) = imported.next().await {
                        // A client that is gone no longer reads; the import goes on, or ends with the upload.
                        let _ = outputs.send(output).await;
                    }
                }
                Err(error) => drop(outputs.send(Err(error)).await),
            }
            drop(outputs);
            // Nobody may be listening any more.
            let _ = end.send(());
            shared.imported.cancel();
        };
        tokio::join!(import, upload.run(&shared));
    });
    Ok(Uploading { outputs: stream::whole(listing, ended).boxed(), progress, streamed })
}

impl Uploading {
    /// The answer: the outputs in the shape that `shown` gives them, as they come or, if the client wants that, as an array.
    pub(crate) async fn answer<T>(self, shown: impl Fn(AddedOutput) -> T + Send + 'static) -> Reply
    where
        T: Serialize + Send + 'static,
    {
        let listing = self.outputs.map(move |output| output.map(&shown));
        let answered = if self.streamed {
            stream::answer(listing, Shape::ADDED).await.map(with_stream_headers)
        } else {
            collect(pin!(listing)).await
        };
        // An import that failed because the upload is malformed: the client is told that, and as its own error.
        answered.map_err(|failure| self.progress.wrong.get().cloned().unwrap_or(failure))
    }
}

/// The reading side of an upload.
struct Upload<S> {
    parts: Multipart<S>,
    events: mpsc::Sender<ServiceResult<AddEvent>>,
    /// Room for the error that says the upload is not whole.
    spare: Option<mpsc::OwnedPermit<ServiceResult<AddEvent>>>,
}

/// Why reading an upload ended early.
enum Stop {
    /// It is not as it should be.
    Wrong(MultipartError),
    /// The import wants no more of it.
    Refused,
}

impl From<MultipartError> for Stop {
    fn from(error: MultipartError) -> Self {
        Self::Wrong(error)
    }
}

impl<S> Upload<S>
where
    S: Stream<Item = Result<Bytes, UploadError>> + Unpin,
{
    async fn run(&mut self, progress: &Progress) {
        let read = tokio::select! {
            biased;
            read = self.read() => read,
            () = progress.imported.cancelled() => Err(Stop::Refused),
        };
        match &read {
            Ok(()) => drop(self.spare.take()),
            Err(Stop::Wrong(error)) => {
                let _ = progress.wrong.set(bad(error));
                self.abort(error.to_string());
            }
            Err(Stop::Refused) => self.abort("the import ended before the upload".to_owned()),
        }
        let (closed, _) = mpsc::channel(1);
        self.events = closed;
        if read.is_err() {
            let (time, most) = match read {
                Err(Stop::Wrong(_)) => (DRAIN_TIME, MAX_DRAINED),
                Ok(()) | Err(Stop::Refused) => (ABANDONED_TIME, MAX_ABANDONED),
            };
            // A client that is cut off while it sends may never see the answer.
            let _ = tokio::time::timeout(time, self.drain(most)).await;
        }
    }

    /// Reads and drops as long as something comes, up to `most` bytes.
    async fn drain(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Ok(drained @ 1..) = tokio::time::timeout(DRAIN_TIME, self.parts.drain(1)).await
        {
            left = left.saturating_sub(drained);
        }
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let mut is_empty = true;
        while let Some(head) = self.parts.next_part().await? {
            is_empty = false;
            self.read_part(&head).await?;
        }
        if is_empty { Err(MultipartError::Malformed("it has no parts").into()) } else { Ok(()) }
    }

    async fn read_part(&mut self, head: &PartHead) -> Result<(), Stop> {
        let path = entry_path(&head.file_name)?;
        match head.content_type.as_str() {
            // The folder that holds everything has no name and needs no event.
            "application/x-directory" if path.is_empty() => Ok(()),
            "application/x-directory" => self.send(AddEvent::Directory { path }).await,
            "application/symlink" => {
                let mut target = Vec::new();
                while let Some(more) = self.parts.next_data().await? {
                    target.extend_from_slice(&more);
                    if target.len() > MAX_PATH {
                        return Err(MultipartError::Malformed("the target of a link is too long").into());
                    }
                }
                let target = String::from_utf8(target)
                    .map_err(|_| MultipartError::Malformed("the target of a link is not UTF-8"))?;
                self.send(AddEvent::Symlink { path, target }).await
            }
            _ => {
                self.send(AddEvent::File { path }).await?;
                while let Some(mut more) = self.parts.next_data().await? {
                    while !more.is_empty() {
                        let piece = more.split_to(more.len().min(AddEvent::MAX_DATA));
                        self.send(AddEvent::Data(piece)).await?;
                    }
                }
                self.send(AddEvent::EndOfFile).await
            }
        }
    }

    async fn send(&self, event: AddEvent) -> Result<(), Stop> {
        self.events.send(Ok(event)).await.map_err(|_| Stop::Refused)
    }
}

impl<S> Upload<S> {
    fn abort(&mut self, reason: String) {
        if let Some(spare) = self.spare.take() {
            drop(spare.send(Err(WireError::new(ErrorClass::Invalid, reason))));
        }
    }
}

impl<S> Drop for Upload<S> {
    fn drop(&mut self) {
        self.abort("the upload was dropped".to_owned());
    }
}

/// The body could not be read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the client went away")]
    Gone(#[source] hyper::Error),
    #[error("the client sends nothing, or too slowly")]
    Stalled,
    #[error("it is too large")]
    TooLarge,
}

fn too_large(most: u64) -> Failure {
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the upload has more than {most} bytes"))
}

/// The data of a body up to `most` bytes. More is an error, and said in `progress`.
fn bounded<S>(body: S, most: u64, progress: Arc<Progress>) -> impl Stream<Item = Result<Bytes, UploadError>> + Send
where
    S: Stream<Item = Result<Bytes, UploadError>> + Send,
{
    let mut left = most;
    body.map(move |data| {
        let data = data?;
        match left.checked_sub(data.len() as u64) {
            Some(rest) => {
                left = rest;
                Ok(data)
            }
            None => {
                let _ = progress.wrong.set(too_large(most));
                Err(UploadError::TooLarge)
            }
        }
    })
}

/// The data of a body; one that stalls while we wait for it, or is not whole when it is due, is an error.
pub(crate) fn patient(
    mut body: Incoming,
    patience: Duration,
    due: Instant,
) -> impl Stream<Item = Result<Bytes, UploadError>> + Send {
    async_stream::stream! {
        loop {
            match tokio::time::timeout_at(due.min(Instant::now() + patience), body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        yield Ok(data);
                    }
                }
                Ok(Some(Err(error))) => yield Err(UploadError::Gone(error)),
                Ok(None) => return,
                Err(_) => yield Err(UploadError::Stalled),
            }
        }
    }
}

/// The path of an entry as the import takes it: no empty parts, no `.`; `..` is refused.
fn entry_path(name: &str) -> Result<String, MultipartError> {
    if name.len() > MAX_PATH {
        return Err(MultipartError::Malformed("the name of an entry is too long"));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || name.contains('\0') {
        return Err(MultipartError::Malformed("the name of an entry leads out of the upload"));
    }
    Ok(parts.join("/"))
}

fn bad(error: &MultipartError) -> Failure {
    Failure::bad_request(error.to_string())
}

fn with_stream_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CHUNKED_OUTPUT, HeaderValue::from_static("1"));
    response
}

/// The outputs as one array, whose first error is the whole answer.
async fn collect<T: Serialize>(mut listing: impl Stream<Item = ServiceResult<T>> + Unpin) -> Reply {
    let mut array = vec![b'['];
    while let Some(output) = listing.next().await {
        if array.len() > 1 {
            array.push(b',');
        }
        json::write(&mut array, &output?).map_err(|error| reply::unwritable(&error))?;
        if array.len() > MAX_COLLECTED {
            let message = "the answer is too long to collect: use stream-channels=true";
            // The import goes on.
            return Err(WireError::new(ErrorClass::Unknown, message).into());
        }
    }
    array.extend_from_slice(b"]\n");
    Ok(reply::with_body(StatusCode::OK, reply::whole(array)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_entry_cannot_lead_out_of_the_upload() {
        assert_eq!(entry_path("/a/./b//c/").unwrap(), "a/b/c");
        assert_eq!(entry_path("").unwrap(), "");
        for bad in ["..", "a/../../b", "a\0b", &"x".repeat(MAX_PATH + 1)] {
            assert!(entry_path(bad).is_err());
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_tells_the_import() {
        let (events, mut received) = mpsc::channel(2);
        let spare = events.clone().try_reserve_owned().ok();
        events.try_send(Ok(AddEvent::EndOfFile)).unwrap();
        let parts = Multipart::new(futures::stream::empty::<Result<Bytes, UploadError>>(), "B");
        drop(Upload { parts, events, spare });
        assert!(received.recv().await.unwrap().is_ok());
        assert!(received.recv().await.unwrap().is_err());
    }
}
