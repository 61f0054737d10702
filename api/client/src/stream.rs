//! Reads newline-delimited JSON, errors in trailers included.
//!
//! **Invariant:** a stream that was cut off is an error, never a short list.

use std::pin::Pin;

use async_stream::try_stream;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::error::{ApiFailure, ClientError};

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
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| bad(format!("it was cut off: {error}")))?;
            match frame.into_data() {
                Ok(data) => buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let texts = trailers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
                        let errors: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
                        if !errors.is_empty() {
                            Err(ClientError::Api(ApiFailure { code: 500, message: errors.join("; ") }))?;
                        }
                    }
                }
            }
            while let Some(line) = take_line(&mut buffer) {
                if let Some(item) = parse(&line)? {
                    yield item;
                }
            }
            if buffer.len() > MAX_LINE {
                Err(bad(format!("one object is longer than {MAX_LINE} bytes")))?;
            }
        }
        if let Some(item) = parse(&buffer)? {
            yield item;
        }
    })
}

fn take_line(buffer: &mut BytesMut) -> Option<Bytes> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    Some(buffer.split_to(end + 1).freeze())
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
