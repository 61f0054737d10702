//! The content of a pin, out of the cluster again.

use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{BoxError, Pin, PinDepth, PinType, WireError};
use futures::StreamExt;

use super::Listing;
use super::service::Cluster;
use crate::ports::IpfsError;
use crate::unixfs::export::export;
use crate::unixfs::read::ReadError;

impl Cluster {
    /// A CAR archive of what a pin holds; of one that is split over peers, all of the content.
    pub(super) fn car_of(&self, pin: &Pin) -> Listing<Bytes> {
        let node = Arc::clone(&self.parts.ipfs);
        let fetch = move |cid| {
            let node = Arc::clone(&node);
            async move { node.block(cid).await.map_err(BoxError::from) }
        };
        let depth = if pin.kind == PinType::Meta { PinDepth::RECURSIVE } else { pin.max_depth };
        export(fetch, pin.cid, depth).map(|piece| piece.map_err(|error| not_exported(&error))).boxed()
    }
}

/// What the node says of a block counts more than that it could not be had.
fn not_exported(error: &ReadError) -> WireError {
    let said = match error {
        ReadError::Fetch { cause, .. } => cause.downcast_ref().map(IpfsError::class),
        ReadError::Malformed(_) | ReadError::WrongKind { .. } | ReadError::NoLink { .. } => None,
    };
    let class = said.unwrap_or_else(|| error.class());
    WireError::from_error(class, error)
}
