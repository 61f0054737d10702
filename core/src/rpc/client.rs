//! Asks other peers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::{ErrorClass, PeerId, WireError};

use super::wire::{Call, Reply, decode_reply, encode_call};
use crate::ports::{Purpose, Transport};

/// A call that is packed already, for several peers.
#[derive(Clone, Debug)]
pub(crate) struct PreparedCall {
    body: Bytes,
    purpose: Purpose,
}

/// Asks other peers through a [`Transport`].
#[derive(Clone)]
pub struct PeerClient {
    transport: Arc<dyn Transport>,
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerClient").finish_non_exhaustive()
    }
}

impl PeerClient {
    /// A client over `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Asks `peer` and waits at most `timeout`. The class of an error says whether the call may have taken effect.
    pub async fn ask(&self, peer: PeerId, call: &Call, timeout: Duration) -> Result<Reply, WireError> {
        self.ask_prepared(peer, &Self::prepare(call)?, timeout).await
    }

    /// Packs a call.
    pub(crate) fn prepare(call: &Call) -> Result<PreparedCall, WireError> {
        let body = encode_call(call).map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        let is_bulk = matches!(
            call,
            Call::PutBlocks { .. } | Call::Blocks { .. } | Call::Shards(_) | Call::Manifest { .. } | Call::Noted { .. }
        );
        Ok(PreparedCall { body, purpose: if is_bulk { Purpose::Bulk } else { Purpose::Call } })
    }

    /// Like [`PeerClient::ask`], for a call that is packed already.
    pub(crate) async fn ask_prepared(
        &self,
        peer: PeerId,
        call: &PreparedCall,
        timeout: Duration,
    ) -> Result<Reply, WireError> {
        let answer = self
            .transport
            .call(peer, call.purpose, call.body.clone(), timeout)
            .await
            .map_err(|error| WireError::from_error(error.class(), &error))?;
        decode_reply(&answer).map_err(|error| WireError::from_error(ErrorClass::Unknown, &error))?
    }

    /// The error for an answer that does not fit the question.
    pub fn misfit(peer: PeerId) -> WireError {
        WireError::new(ErrorClass::Unknown, format!("peer {peer} gave an answer to another question"))
    }
}
