//! Members: who they are, and how they come and go.

use cluster_types::{PeerId, parse_peer_id};
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Rest, Unread};
use crate::error::Failure;
use crate::reply::{self, Reply};
use crate::stream::{Shape, answer};

/// The largest JSON body that is read.
const MAX_BODY: usize = 64 * 1024;

/// The body of `POST /peers`.
#[derive(Deserialize)]
struct AddPeerBody {
    #[serde(default)]
    peer_id: String,
}

/// Who is to be added by a body of `POST /peers`.
pub(crate) fn added_peer(body: &[u8]) -> Result<PeerId, Failure> {
    // By way of an object: a structure would also be read from a list.
    let object = serde_json::from_slice(body).map(serde_json::Value::Object);
    let body: AddPeerBody =
        object.and_then(serde_json::from_value).map_err(|_| Failure::bad_request("error decoding request body"))?;
    parse_peer_id(&body.peer_id).map_err(|_| Failure::bad_request("error decoding peer_id"))
}

impl Rest {
    /// `GET /id`.
    pub(super) async fn id(&self) -> Reply {
        reply::json(&self.service.id().await?)
    }

    /// `GET /peers`.
    pub(super) async fn peers(&self) -> Reply {
        let peers = self.service.peers().await?;
        answer(stream::iter(peers.into_iter().map(Ok)), Shape::LISTING).await
    }

    /// `POST /peers`.
    pub(super) async fn add_peer(&self, body: &mut Unread) -> Reply {
        let body = self.small_body(body).await?;
        let peer = added_peer(&body)?;
        reply::json(&self.detached(|service| async move { service.add_peer(peer).await }).await?)
    }

    /// `DELETE /peers/{peer}`.
    pub(super) async fn remove_peer(&self, peer: &str) -> Reply {
        let peer =
            parse_peer_id(peer).map_err(|error| Failure::bad_request(format!("error decoding Peer ID: {error}")))?;
        self.detached(|service| async move { service.remove_peer(peer).await }).await?;
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }

    async fn small_body(&self, unread: &mut Unread) -> Result<bytes::Bytes, Failure> {
        let too_large =
            || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BODY} bytes"));
        if unread.least_bytes() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let reading = Limited::new(unread.take(), MAX_BODY).collect();
        let until = unread.due().min(Instant::now() + self.patience.idle);
        match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Failure::bad_request("error decoding request body")),
            Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }
}
