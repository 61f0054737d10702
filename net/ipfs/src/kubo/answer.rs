//! The body of an answer: bounded, and complete or an error.
//!
//! Kubo ends a stream of objects with nothing but the end of the HTTP body. So an answer counts as complete when
//! * its end is marked by HTTP itself (chunked, or a length): a body that ends with the connection could be cut
//!   anywhere;
//! * the mark arrived;
//! * the trailer `X-Stream-Error` did not, in which Kubo reports what fails after it has said 200;
//! * and no object in it is an error object.

use bytes::{Buf, Bytes, BytesMut};
use cluster_core::ports::IpfsError;
use http_body_util::BodyExt;
use reqwest::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde::de::DeserializeOwned;

use super::client::{Call, Failure, error_message, shortened};

/// The trailer in which Kubo reports errors after it has said 200.
const STREAM_ERROR: &str = "x-stream-error";
/// The longest line of an answer: a pin with a long name is below 1 KiB.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// An answer being read.
pub(super) struct Answer {
    operation: &'static str,
    path: String,
    body: reqwest::Body,
    end_is_marked: bool,
    ended: bool,
}

impl Answer {
    /// The answer to `call`.
    pub(super) fn new(call: &Call, response: reqwest::Response) -> Self {
        let headers = response.headers();
        let end_is_marked = headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH);
        Self { operation: call.operation, path: call.path(), body: response.into(), end_is_marked, ended: false }
    }

    /// The next piece; `None` only when everything was received and nothing went wrong.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.ended {
            let Some(frame) = self.body.frame().await else {
                self.ended = true;
                break;
            };
            let frame = frame.map_err(|error| self.bad(format!("it ended early: {}", error.without_url())))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    let error = frame.trailers_ref().and_then(|trailers| trailers.get(STREAM_ERROR));
                    if let Some(error) = error {
                        let message = shortened(&String::from_utf8_lossy(error.as_bytes()));
                        return Err(self.said(message));
                    }
                }
            }
        }
        if self.end_is_marked { Ok(None) } else { Err(self.bad("nothing marks its end".to_owned()).into()) }
    }

    /// Everything, when it is at most `limit` bytes.
    pub(super) async fn whole(mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > limit - whole.len() {
                return Err(self.bad(format!("it is longer than {limit} bytes")).into());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// At most the first `limit` bytes, however the answer ends.
    pub(super) async fn beginning(mut self, limit: usize) -> Bytes {
        let mut whole = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = limit - whole.len();
            whole.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if whole.len() == limit {
                break;
            }
        }
        whole.freeze()
    }

    /// Reads the answer line by line.
    pub(super) fn lines(self) -> Lines {
        Lines { answer: self, buffer: BytesMut::new(), searched: 0 }
    }

    /// An answer that makes no sense.
    pub(super) fn bad(&self, reason: String) -> IpfsError {
        IpfsError::BadAnswer { operation: self.operation, reason }
    }

    fn said(&self, message: String) -> Failure {
        Failure::Said { path: self.path.clone(), status: 200, message }
    }
}

/// An answer of one JSON object per line.
pub(super) struct Lines {
    answer: Answer,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Lines {
    /// The next object; `None` only when the answer is complete. Dropping the future loses nothing.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        while let Some(line) = self.next_line().await? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Some(message) = error_message(&line) {
                return Err(self.answer.said(message));
            }
            let parsed = serde_json::from_slice(&line);
            return parsed.map(Some).map_err(|error| self.bad(error.to_string()).into());
        }
        Ok(None)
    }

    /// An answer that makes no sense.
    pub(super) fn bad(&self, reason: String) -> IpfsError {
        self.answer.bad(reason)
    }

    async fn next_line(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(self.bad(format!("a line is longer than {MAX_LINE} bytes")).into());
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}
