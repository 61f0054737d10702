//! Trying again what failed.

use super::{Rest, parse_cid, reach};
use crate::query::Query;
use crate::reply::{self, Reply};
use crate::stream::{self, Shape};

impl Rest {
    /// `POST /pins/{cid}/recover`.
    pub(super) async fn recover(&self, cid: &str, query: &Query) -> Reply {
        let (cid, reach) = (parse_cid(cid)?, reach(query));
        let recovered = self.gate.detached(|service| async move { service.recover(cid, reach).await }).await?;
        reply::json(&recovered)
    }

    /// `POST /pins/recover`.
    pub(super) async fn recover_all(&self, query: &Query) -> Reply {
        let reach = reach(query);
        let listing = self.detached_listing(|service| service.recover_all(reach))?;
        stream::answer(listing, Shape::LISTING).await
    }
}
