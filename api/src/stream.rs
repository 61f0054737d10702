//! Listings as newline-delimited JSON, with their errors in a trailer.
//!
//! **Invariant:** one item is held at a time: the client's reading sets the pace.
//! **Invariant:** a listing never ends short in silence: what went wrong stands in the trailer `X-Stream-Error`. (HTTP/1.0
//! has no trailers: there the connection breaks, see [`connection`](crate::connection).)

use bytes::Bytes;
use cluster_core::cluster::ServiceResult;
use cluster_types::{ErrorClass, WireError};
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::connection::Broken;
use crate::error::Failure;
use crate::json;
use crate::reply::{self, Body, Reply};

/// The trailer that carries errors.
pub(crate) const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");
/// How many errors a trailer reports; the others are counted.
const MAX_ERRORS: usize = 32;
/// How many bytes of an error a trailer reports.
const MAX_ERROR_BYTES: usize = 1024;

/// What tells one kind of listing from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The answer to an empty listing.
    pub(crate) when_empty: StatusCode,
    /// Whether the trailer is sent, empty, when all went well.
    pub(crate) trailer_on_success: bool,
}

impl Shape {
    /// What all listings but an upload's have.
    pub(crate) const LISTING: Self = Self { when_empty: StatusCode::NO_CONTENT, trailer_on_success: true };
    /// The outputs of an upload.
    pub(crate) const ADDED: Self = Self { when_empty: StatusCode::OK, trailer_on_success: false };
}

/// Answers with `items`. The status waits for the first of them: an error there is an ordinary error answer.
pub(crate) async fn answer<T, S>(items: S, shape: Shape) -> Reply
where
    T: Serialize + Send + 'static,
    S: Stream<Item = ServiceResult<T>> + Send + 'static,
{
    let mut items = Box::pin(items);
    let first = match items.next().await {
        None => return Ok(reply::empty(shape.when_empty)),
        Some(Err(error)) => return Err(Failure::from(error)),
        Some(Ok(item)) => json::line(&item).map_err(|error| reply::unwritable(&error))?,
    };
    let lines = async_stream::stream! {
        yield Ok(Frame::data(first));
        let mut errors = Errors::default();
        while let Some(item) = items.next().await {
            match item.and_then(|item| line(&item)) {
                Ok(line) => yield Ok(Frame::data(line)),
                Err(error) => errors.add(&error),
            }
        }
        if let Some(trailers) = errors.trailers(shape) {
            yield Ok(Frame::trailers(trailers));
        }
    };
    Ok(announced(reply::unbroken(StreamBody::new(lines))))
}

/// Answers with bytes as they come. The status waits for the second piece, since the first may be made before anything is
/// read; an error until then is an ordinary error answer, and one after it breaks the connection.
pub(crate) async fn bytes<S>(pieces: S, content_type: HeaderValue) -> Reply
where
    S: Stream<Item = ServiceResult<Bytes>> + Send + 'static,
{
    let mut pieces = Box::pin(pieces);
    let mut first = Vec::new();
    while first.len() < 2
        && let Some(piece) = pieces.next().await
    {
        first.push(Ok(piece?));
    }
    let mut rest = futures::stream::iter(first).chain(pieces);
    let frames = async_stream::stream! {
        while let Some(piece) = rest.next().await {
            match piece {
                Ok(piece) => yield Ok(Frame::data(piece)),
                Err(error) => {
                    tracing::debug!(%error, "an answer that is not whole breaks off");
                    yield Err(Broken);
                    return;
                }
            }
        }
    };
    let mut response = reply::with_body(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// The items of a task that says at its `end` that it has sent all of them. Without that word they are not whole: a task
/// that panics drops both.
pub(crate) fn whole<T>(
    mut items: mpsc::Receiver<ServiceResult<T>>,
    end: oneshot::Receiver<()>,
) -> impl Stream<Item = ServiceResult<T>> {
    async_stream::stream! {
        while let Some(item) = items.recv().await {
            yield item;
        }
        if end.await.is_err() {
            yield Err(WireError::new(ErrorClass::Unknown, "it ended without an answer; the log says why"));
        }
    }
}

pub(crate) fn announced(body: Body) -> Response<Body> {
    let mut response = reply::with_body(StatusCode::OK, body);
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}

fn line<T: Serialize>(item: &T) -> Result<Bytes, WireError> {
    json::line(item).map_err(|error| WireError::new(ErrorClass::Fatal, error.to_string()))
}

/// The errors of a listing, bounded.
#[derive(Debug, Default)]
struct Errors {
    kept: Vec<HeaderValue>,
    dropped: usize,
}

impl Errors {
    fn add(&mut self, error: &WireError) {
        if self.kept.len() < MAX_ERRORS {
            self.kept.push(header_text(&error.message));
        } else {
            self.dropped += 1;
        }
    }

    fn trailers(self, shape: Shape) -> Option<HeaderMap> {
        let mut trailers = HeaderMap::new();
        if self.kept.is_empty() && shape.trailer_on_success {
            trailers.append(STREAM_ERROR, HeaderValue::from_static(""));
        }
        for error in self.kept {
            trailers.append(STREAM_ERROR, error);
        }
        if self.dropped > 0 {
            trailers.append(STREAM_ERROR, header_text(&format!("and {} more errors", self.dropped)));
        }
        (!trailers.is_empty()).then_some(trailers)
    }
}

/// `text` as a header may hold it: no control characters, not too long, never empty.
pub(crate) fn header_text(text: &str) -> HeaderValue {
    let clean: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let mut end = clean.len().min(MAX_ERROR_BYTES);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    match HeaderValue::from_bytes(&clean.as_bytes()[..end]) {
        Ok(value) if !value.is_empty() => value,
        Ok(_) | Err(_) => HeaderValue::from_static("unknown error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_cannot_break_out_of_its_header() {
        assert_eq!(header_text("a\r\nInjected: 1"), "a  Injected: 1");
        assert_eq!(header_text(""), "unknown error");
        assert!(header_text(&"é".repeat(5_000)).len() <= MAX_ERROR_BYTES);
    }

    #[test]
    fn errors_beyond_the_bound_are_counted() {
        let mut errors = Errors::default();
        for _ in 0..MAX_ERRORS + 3 {
            errors.add(&WireError::new(ErrorClass::Fatal, "no"));
        }
        let trailers = errors.trailers(Shape::LISTING).unwrap();
        let values: Vec<_> = trailers.get_all(STREAM_ERROR).iter().collect();
        assert_eq!((values.len(), values[MAX_ERRORS].to_str().unwrap()), (MAX_ERRORS + 1, "and 3 more errors"));
    }
}
