//! Requests that the node answers: passed on as they are, and their answers passed back as they come.
//!
//! **Invariant:** both bodies go through piece by piece; no more of them is held than the buffers of two connections.
//! **Invariant:** an answer that breaks off at the node breaks off at the client; it never looks whole.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{BoxError, ErrorChain};
use futures::StreamExt;
use http::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Body as _, Incoming};

use super::kubo::Refusal;
use super::node::{Node, NodeError};
use crate::connection::Broken;
use crate::reply::Body;
use crate::upload::{self, Unread};

/// Headers of one connection, which say nothing to the next. `Trailer` is not among them: trailers are passed on.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Passes a request on, and its answer back.
pub(super) async fn pass(
    node: &Node,
    head: &Parts,
    body: &mut Unread,
    idle: Duration,
) -> Result<Response<Body>, Refusal> {
    let target = head.uri.path_and_query().cloned();
    let answer = send(node, head, target.unwrap_or_else(|| PathAndQuery::from_static("/")), body, idle).await?;
    Ok(answer.map(|body| body.map_err(|_broken| Broken).boxed_unsync()))
}

/// Sends a request to `target` on the node; the answer without what concerned the connection to it.
pub(super) async fn send(
    node: &Node,
    head: &Parts,
    target: PathAndQuery,
    body: &mut Unread,
    idle: Duration,
) -> Result<Response<Incoming>, Refusal> {
    let refused = |error: NodeError| Refusal::with(StatusCode::BAD_GATEWAY, ErrorChain(&error).to_string());
    // Before the body is touched: a client that still sends it gets to read why it is not wanted.
    let connection = node.reach().await.map_err(refused)?;
    let mut request = Request::new(sent(body, idle));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(target);
    let headers = request.headers_mut();
    *headers = head.headers.clone();
    without_hops(headers);
    // It was answered when the body began to be read.
    headers.remove(EXPECT);
    if !headers.contains_key(HOST) {
        headers.insert(HOST, node.authority());
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let mut answer = connection.send(request).await.map_err(refused)?;
    without_hops(answer.headers_mut());
    Ok(answer)
}

/// The body of a request on its way to the node. One that stalls breaks off there.
fn sent(body: &mut Unread, idle: Duration) -> UnsyncBoxBody<Bytes, BoxError> {
    let due = body.due();
    let incoming = body.take();
    if incoming.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let frames = upload::patient(incoming, idle, due).map(|data| data.map(Frame::data).map_err(BoxError::from));
    StreamBody::new(frames).boxed_unsync()
}

/// Removes what is said of one connection: the usual headers, and those that `Connection` names.
fn without_hops(headers: &mut HeaderMap) {
    let named: BTreeSet<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in named {
        headers.remove(name.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_connection_ends_with_it() {
        let pairs = [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("trailer", "X-Stream-Error"),
            ("x-end", "2"),
        ];
        let pairs = pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::from_iter(pairs);
        without_hops(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["trailer", "x-end"]);
    }
}
