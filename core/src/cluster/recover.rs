//! Tries again at once what failed.

use cluster_types::{Cid, GlobalPinInfo, PinInfo};

use super::service::{Cluster, from_state, not_pinned};
use super::{Listing, Reach, ServiceResult};
use crate::rpc::{Call, StatusPage};

/// Items of one page.
const PAGE: u32 = 512;

impl Cluster {
    pub(super) async fn recover_one(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        if reach == Reach::Local {
            let pin = self.parts.state.pin(cid).await.map_err(|error| from_state(&error))?;
            pin.ok_or_else(not_pinned)?;
        }
        self.about(cid, reach, Call::Recover { cid }).await
    }

    pub(super) fn recover_everything(&self, reach: Reach) -> Listing<GlobalPinInfo> {
        self.merged(reach, |after| Call::RecoverPage { after, limit: PAGE })
    }

    /// Tries one pin again here, if it failed, and says how it is doing then.
    pub(super) async fn recover_here(&self, cid: Cid) -> ServiceResult<PinInfo> {
        self.parts.tracker.recover(cid).await.map_err(|error| from_state(&error))?;
        self.local_status(cid).await
    }

    /// Tries one page of what failed here again.
    pub(super) async fn recover_page(&self, after: Option<Cid>, limit: u32) -> ServiceResult<StatusPage> {
        let limit = usize::try_from(limit.min(PAGE)).unwrap_or(1).max(1);
        let tried = self.parts.tracker.recover_page(after, limit).await.map_err(|error| from_state(&error))?;
        let mut page = StatusPage { items: Vec::with_capacity(tried.cids.len()), next: tried.next };
        for cid in tried.cids {
            page.items.push(self.local_status(cid).await?);
        }
        Ok(page)
    }
}
