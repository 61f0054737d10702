//! Answers in Kubo's shapes.
//!
//! **Invariant:** an answer that fails after it began never looks whole: the error stands in the trailer
//! `X-Stream-Error` for a client that takes trailers, and the connection breaks for one that does not.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use cluster_core::ports::IpfsError;
use cluster_core::unixfs::read::ReadError;
use cluster_types::{BoxError, ErrorChain, WireError};
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER, TRAILER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

/// The trailer that carries late errors.
const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");
/// Says that an answer is a row of JSON objects.
const CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
/// Says that an answer is bytes.
const STREAM_OUTPUT: HeaderName = HeaderName::from_static("x-stream-output");
/// How many bytes of content follow, archives and compression apart.
const CONTENT_LENGTH: HeaderName = HeaderName::from_static("x-content-length");
/// Headers Kubo shows to pages.
const EXPOSED: HeaderValue = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");
/// Bytes of an error that a trailer carries.
const MAX_TRAILER: usize = 1024;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;
/// What a command answers.
pub(super) type Answer = Result<Response<Body>, Failure>;
/// A row of objects that may end with an error.
pub(super) type Row = Pin<Box<dyn Stream<Item = Result<Value, Failure>> + Send>>;

/// A command failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
    /// Kubo's error code, or none for an error in plain text.
    code: Option<u8>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    /// An ordinary error.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, message, Some(0))
    }

    /// An error that Kubo's HTTP layer answers in plain text.
    pub(super) fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        Self::with(status, message, None)
    }

    /// An argument or option makes no sense.
    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, message)
    }

    fn with(status: StatusCode, message: impl Into<String>, code: Option<u8>) -> Self {
        Self { status, message: message.into(), code, headers: Vec::new() }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What went wrong.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The error with words before it.
    pub(super) fn under(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let Some(code) = self.code else {
            let text = if self.message.is_empty() { String::new() } else { format!("{}\n", self.message) };
            let mut response = Response::new(full(text));
            *response.status_mut() = self.status;
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
            headers.extend(self.headers);
            return response;
        };
        let mut response = one(&json!({ "Message": self.message, "Code": code, "Type": "error" }));
        *response.status_mut() = self.status;
        response
    }
}

impl From<IpfsError> for Failure {
    fn from(error: IpfsError) -> Self {
        Self::new(ErrorChain(&error).to_string())
    }
}

impl From<cluster_core::ports::BlockError> for Failure {
    fn from(error: cluster_core::ports::BlockError) -> Self {
        Self::new(ErrorChain(&error).to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        // What the node says is enough, as with Kubo.
        if let ReadError::Fetch { cause, .. } = &error {
            return Self::new(ErrorChain(cause.as_ref()).to_string());
        }
        Self::new(ErrorChain(&error).to_string())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::new(error.message)
    }
}

/// A single object.
pub(super) fn one(value: &Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{value}\n")));
    common(response.headers_mut(), HeaderValue::from_static("application/json"));
    response
}

/// A row of objects; an error before the first is an ordinary one.
pub(super) async fn row(trailers: bool, mut row: Row) -> Answer {
    let first = row.next().await.transpose()?;
    let lines = futures::stream::iter(first.map(Ok)).chain(row).map(|value| value.map(|value| line(&value)));
    let mut response = Response::new(streamed(trailers, lines));
    common(response.headers_mut(), HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CHUNKED_OUTPUT, HeaderValue::from_static("1"));
    Ok(response)
}

/// Bytes; an error before the first is an ordinary one.
pub(super) async fn content<S>(trailers: bool, content_type: &'static str, length: Option<u64>, bytes: S) -> Answer
where
    S: Stream<Item = Result<Bytes, Failure>> + Send + 'static,
{
    let mut bytes = Box::pin(bytes);
    let first = bytes.next().await.transpose()?;
    let bytes = futures::stream::iter(first.map(Ok)).chain(bytes);
    let mut response = Response::new(streamed(trailers, bytes));
    common(response.headers_mut(), HeaderValue::from_static(content_type));
    response.headers_mut().insert(STREAM_OUTPUT, HeaderValue::from_static("1"));
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn streamed<S>(trailers: bool, bytes: S) -> Body
where
    S: Stream<Item = Result<Bytes, Failure>> + Send + 'static,
{
    let frames = bytes.map(move |item| match item {
        Ok(bytes) => Ok(Frame::data(bytes)),
        Err(failure) if trailers => {
            Ok(Frame::trailers(HeaderMap::from_iter([(STREAM_ERROR, for_header(failure.message()))])))
        }
        Err(failure) => Err(BoxError::from(failure.message)),
    });
    StreamBody::new(frames).boxed_unsync()
}

fn for_header(message: &str) -> HeaderValue {
    let printable: String =
        message.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { ' ' }).collect();
    HeaderValue::from_str(&printable[..printable.len().min(MAX_TRAILER)]).unwrap_or(HeaderValue::from_static("error"))
}

fn common(headers: &mut HeaderMap, content_type: HeaderValue) {
    const AGENT: &str = concat!("ipfs-cluster/", env!("CARGO_PKG_VERSION"));
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(SERVER, HeaderValue::from_static(AGENT));
    headers.insert("access-control-allow-headers", EXPOSED);
    headers.insert("access-control-expose-headers", EXPOSED);
    headers.insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
}
