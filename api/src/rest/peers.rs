//! Members: who they are, and how they come and go.

use cluster_types::{PeerId, parse_peer_id};
use futures::stream;
use http::StatusCode;
use serde::Deserialize;

use super::{Rest, Unread};
use crate::error::Failure;
use crate::reply::{self, Reply};
use crate::stream::{Shape, answer};

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
        reply::json(&self.gate.service.id().await?)
    }

    /// `GET /peers`.
    pub(super) async fn peers(&self) -> Reply {
        let peers = self.gate.service.peers().await?;
        answer(stream::iter(peers.into_iter().map(Ok)), Shape::LISTING).await
    }

    /// `POST /peers`.
    pub(super) async fn add_peer(&self, body: &mut Unread) -> Reply {
        let body = self.gate.small_body(body).await?;
        let peer = added_peer(&body)?;
        reply::json(&self.gate.detached(|service| async move { service.add_peer(peer).await }).await?)
    }

    /// `DELETE /peers/{peer}`.
    pub(super) async fn remove_peer(&self, peer: &str) -> Reply {
        let peer =
            parse_peer_id(peer).map_err(|error| Failure::bad_request(format!("error decoding Peer ID: {error}")))?;
        self.gate.detached(|service| async move { service.remove_peer(peer).await }).await?;
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }
}
