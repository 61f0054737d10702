//! The shared pinset.

use cluster_types::PinTypeFilter;

use super::{Rest, parse_cid, window};
use crate::error::Failure;
use crate::query::Query;
use crate::reply::{self, Reply};
use crate::stream::{self, Shape};

impl Rest {
    /// `GET /allocations`.
    pub(super) async fn allocations(&self, query: &Query) -> Reply {
        let filter = PinTypeFilter::parse(query.value("filter").unwrap_or_default())
            .ok_or_else(|| Failure::bad_request("invalid filter value"))?;
        let (search, window) = (window::search(query)?, window::parse(query)?);
        if search.is_empty() {
            return stream::answer(self.gate.service.allocations(filter, window), Shape::LISTING).await;
        }
        self.check_place(&search, window).await?;
        stream::answer(self.gate.service.search(search, filter, window), Shape::LISTING).await
    }

    /// `GET /allocations/{cid}`.
    pub(super) async fn allocation(&self, cid: &str) -> Reply {
        reply::json(&self.gate.service.allocation(parse_cid(cid)?).await?)
    }
}
