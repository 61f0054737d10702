//! Garbage collection on the IPFS nodes.

use super::{Rest, reach};
use crate::query::Query;
use crate::reply::{self, Reply};

impl Rest {
    /// `POST /ipfs/gc`.
    pub(super) async fn collect_garbage(&self, query: &Query) -> Reply {
        let reach = reach(query);
        let collected = self.gate.detached(|service| async move { service.collect_garbage(reach).await }).await?;
        reply::json(&collected)
    }
}
