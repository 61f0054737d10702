//! How answers are made.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;

use crate::connection::Broken;
use crate::error::Failure;
use crate::json;

/// The body of an answer. One that is passed on from elsewhere may break.
pub(crate) type Body = UnsyncBoxBody<Bytes, Broken>;
/// What handlers return.
pub(crate) type Reply = Result<Response<Body>, Failure>;

/// The content type of every answer but a page.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, unbroken(Empty::new()))
}

/// An answer of one document.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Reply {
    document(StatusCode::OK, value)
}

/// A body that is here already.
pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    unbroken(Full::new(body.into()))
}

/// A body that does not break.
pub(crate) fn unbroken(body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a body of JSON.
pub(crate) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A page, and what a browser may do with it.
pub(crate) fn page(html: &'static str, policy: &'static str) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, whole(html));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer that reports `failure`.
pub(crate) fn failure(failure: &Failure) -> Response<Body> {
    document(failure.status, &failure.body()).unwrap_or_else(|_| empty(failure.status))
}

fn document<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Reply {
    let line = json::line(value).map_err(|error| unwritable(&error))?;
    Ok(with_body(status, whole(line)))
}

/// A value that JSON cannot hold.
pub(crate) fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {error}"))
}
