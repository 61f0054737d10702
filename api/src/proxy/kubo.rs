//! Answers in the shapes of Kubo's RPC.
//!
//! One document has no line feed behind it, a stream of documents has one behind each, as in the original; errors in the
//! middle of a stream stand in the trailer `X-Stream-Error`.

use bytes::Bytes;
use cluster_types::WireError;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Serialize;

use crate::error::Failure;
use crate::json;
use crate::reply::{self, Body};
use crate::stream::{self, STREAM_ERROR};

/// Further errors are dropped when so many bytes are there: a trailer holds no more.
const MAX_ERRORS: usize = 1024;

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// What handlers return.
pub(super) type Answer = Result<Response<Body>, Refusal>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorObject<'a> {
    message: &'a str,
    code: u32,
    r#type: &'a str,
}

impl Refusal {
    /// What Kubo says of nearly everything.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// With another status.
    pub(super) fn with(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The answer that says it.
    pub(super) fn answer(&self) -> Response<Body> {
        let object = ErrorObject { message: &self.message, code: 0, r#type: "error" };
        let body = document(&object).unwrap_or_default();
        reply::with_body(self.status, reply::whole(body))
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::new(error.message)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure.message)
    }
}

/// An answer of one document.
pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    let body = document(value).map_err(|error| Refusal::new(format!("the answer cannot be written: {error}")))?;
    Ok(reply::with_body(StatusCode::OK, reply::whole(body)))
}

/// One document, without a line feed.
pub(super) fn document<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::new();
    json::write(&mut text, value)?;
    Ok(text)
}

/// One document and its line feed.
pub(super) fn line<T: Serialize>(value: &T) -> Result<Bytes, WireError> {
    json::line(value).map_err(|error| WireError::new(cluster_types::ErrorClass::Fatal, error.to_string()))
}

/// An answer that is sent piece by piece; its errors go into the trailer.
pub(super) fn stream(pieces: impl Stream<Item = Result<Bytes, WireError>> + Send + 'static) -> Response<Body> {
    let frames = async_stream::stream! {
        let mut pieces = std::pin::pin!(pieces);
        let mut errors = Vec::new();
        let mut kept = 0;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => yield Ok(Frame::data(piece)),
                Err(error) if kept < MAX_ERRORS => {
                    kept += error.message.len();
                    errors.push(error.message);
                }
                Err(_too_many) => {}
            }
        }
        if !errors.is_empty() {
            let errors = stream::header_text(&errors.join(" "));
            yield Ok(Frame::trailers(HeaderMap::from_iter([(STREAM_ERROR, errors)])));
        }
    };
    stream::announced(reply::unbroken(StreamBody::new(frames)))
}

/// An answer in words.
pub(super) fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut response = reply::with_body(status, reply::whole(words));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
