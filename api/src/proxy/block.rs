//! `block/put` and `dag/put` with `pin=true`: the node keeps the blocks, the cluster pins them.
//!
//! **Invariant:** what the node answers is passed on line by line; a line is held whole, and none is longer than [`MAX_LINE`].

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use cluster_core::cluster::{ClusterService, ServiceResult};
use cluster_types::{Cid, ErrorClass, PinOptions, WireError};
use futures::{Stream, StreamExt};
use http::StatusCode;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::kubo::{self, Answer};
use super::{Proxy, forward};
use crate::connection::Broken;
use crate::stream::STREAM_ERROR;
use crate::upload::Unread;

/// The longest line of the node's answer: several times a CID and a number.
const MAX_LINE: usize = 16 * 1024;

/// A block that the node has put.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Block {
    key: Cid,
    size: u64,
}

/// A node of a DAG that the node has put.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DagNode {
    cid: Link,
}

#[derive(Serialize, Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: Cid,
}

/// A line of the node's answer.
pub(super) trait Put: Serialize + for<'line> Deserialize<'line> + Send + 'static {
    /// What was put.
    fn cid(&self) -> Cid;
}

impl Put for Block {
    fn cid(&self) -> Cid {
        self.key
    }
}

impl Put for DagNode {
    fn cid(&self) -> Cid {
        self.cid.cid
    }
}

impl Proxy {
    /// `block/put?pin=true`, passed on as it is.
    pub(super) async fn block_put(&self, head: &Parts, body: &mut Unread) -> Answer {
        self.put::<Block>(head, head.uri.path_and_query().cloned(), body).await
    }

    /// `dag/put?pin=true`, passed on with `pin=false`.
    pub(super) async fn dag_put(&self, head: &Parts, body: &mut Unread) -> Answer {
        let others = head.uri.query().unwrap_or_default().split('&');
        let others = others.filter(|pair| !matches!(pair.split_once('=').map_or(*pair, |(name, _)| name), "" | "pin"));
        let query = others.chain(["pin=false"]).collect::<Vec<_>>().join("&");
        let target = PathAndQuery::try_from(format!("{}?{query}", head.uri.path())).ok();
        self.put::<DagNode>(head, target, body).await
    }

    async fn put<P: Put>(&self, head: &Parts, target: Option<PathAndQuery>, body: &mut Unread) -> Answer {
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let answer = forward::send(&self.node, head, target, body, self.patience.idle).await?;
        if answer.status() != StatusCode::OK {
            return Ok(answer.map(|body| body.map_err(|_broken| Broken).boxed_unsync()));
        }
        let service = Arc::clone(&self.service);
        let told = lines(answer.into_body()).then(move |line| {
            let service = Arc::clone(&service);
            async move { pin_line::<P>(&*service, &line?).await }
        });
        // What the node has put is told also if it could not be pinned.
        let told = told.flat_map(|line: ServiceResult<(Bytes, ServiceResult<()>)>| {
            let pieces = match line {
                Ok((line, Ok(()))) => vec![Ok(line)],
                Ok((line, Err(error))) => {
                    vec![Ok(line), Err(WireError::new(error.class, format!("{};", error.message)))]
                }
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(pieces)
        });
        // To its end, whether or not the client reads it.
        Ok(kubo::stream(self.writes.listing(self.service.as_ref(), |_service| told.boxed())?))
    }
}

/// Pins what a line of the node's answer names; the line to pass on, and what became of the pin.
async fn pin_line<P: Put>(service: &dyn ClusterService, line: &[u8]) -> ServiceResult<(Bytes, ServiceResult<()>)> {
    let put: P = serde_json::from_slice(line).map_err(|error| strange(&error.to_string()))?;
    let pinned = service.pin(put.cid(), PinOptions::default()).await;
    Ok((kubo::line(&put)?, pinned.map(drop)))
}

/// The lines of a body; an error ends them.
fn lines(body: Incoming) -> impl Stream<Item = ServiceResult<Vec<u8>>> + Send {
    async_stream::stream! {
        let mut body = body;
        let mut held = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data().map_err(|frame| frame.into_trailers())) {
                Ok(Ok(piece)) => held.extend_from_slice(&piece),
                Ok(Err(trailers)) => {
                    let trailers = trailers.unwrap_or_default();
                    let said = trailers.get(STREAM_ERROR).and_then(|error| error.to_str().ok()).unwrap_or_default();
                    if !said.is_empty() {
                        yield Err(WireError::new(ErrorClass::Unavailable, said));
                    }
                }
                Err(error) => {
                    yield Err(WireError::from_error(ErrorClass::Unavailable, &error));
                    return;
                }
            }
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line = held.split_to(end);
                held.advance(1);
                if !line.is_empty() {
                    yield Ok(line.to_vec());
                }
            }
            if held.len() > MAX_LINE {
                yield Err(strange("a line is too long"));
                return;
            }
        }
        if !held.is_empty() {
            yield Ok(held.to_vec());
        }
    }
}

fn strange(why: &str) -> WireError {
    WireError::new(ErrorClass::Unavailable, format!("the IPFS node gave a strange answer: {why}"))
}
