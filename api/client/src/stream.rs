//! Reads newline-delimited JSON, errors in trailers included.
//!
//! **Invariant:** a stream that was cut off is an error, never a short list.

use std::pin::Pin;

use async_stream::try_stream;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::HeaderMap;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::error::{ApiFailure, ClientError};
use crate::methods::cut_off;

/// The longest single object accepted, in bytes.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// The trailer with errors that came after the first item.
const TRAILER: &str = "x-stream-error";

/// Items as they come.
pub type Items<T> = Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>;

/// The items of an answer.
pub(crate) fn items<T: DeserializeOwned + Send + 'static>(response: reqwest::Response) -> Items<T> {
    let mut body = reqwest::Body::from(response);
    Box::pin(try_stream! {
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| cut_off(&error))?;
            match frame.into_data() {
                Ok(data) => lines.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Some(failure) = frame.into_trailers().ok().as_ref().and_then(late_failure) {
                        Err(ClientError::Api(failure))?;
                    }
                }
            }
            while let Some(line) = lines.next() {
                if let Some(item) = parse(&line)? {
                    yield item;
                }
            }
            if lines.buffer.len() > MAX_LINE {
                Err(bad(format!("one object is longer than {MAX_LINE} bytes")))?;
            }
        }
        if let Some(item) = parse(&lines.buffer)? {
            yield item;
        }
    })
}

/// The errors a trailer reports; empty ones say that there was none. Texts may be in any language.
fn late_failure(trailers: &HeaderMap) -> Option<ApiFailure> {
    let values = trailers.get_all(TRAILER).iter().filter(|value| !value.is_empty());
    let errors: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!errors.is_empty()).then(|| ApiFailure { code: 500, message: errors.join("; ") })
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// How many bytes at the start of the buffer hold no line end.
    searched: usize,
}

impl Lines {
    fn next(&mut self) -> Option<Bytes> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<Option<T>, ClientError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(line).map(Some).map_err(|error| bad(error.to_string()))
}

fn bad(reason: String) -> ClientError {
    ClientError::BadAnswer { reason }
}
