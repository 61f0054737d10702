//! What lost when writes made apart were merged.

use cluster_types::{Event, EventPlace};

use super::Rest;
use crate::error::Failure;
use crate::query::Query;
use crate::reply::Reply;
use crate::stream::{self, Shape};

impl Rest {
    /// `GET /events`.
    pub(super) async fn events(&self, query: &Query) -> Reply {
        let before = query.value("before").map(str::parse::<EventPlace>).transpose();
        let before = before.map_err(|error| Failure::bad_request(format!("parameter before invalid: {error}")))?;
        let limit = match query.value("limit").map(str::parse) {
            None => Event::DEFAULT_LIMIT,
            Some(Ok(limit @ 1..=Event::MAX_LIMIT)) => limit,
            Some(_) => {
                let message = format!("parameter limit invalid: it must be 1 to {}", Event::MAX_LIMIT);
                return Err(Failure::bad_request(message));
            }
        };
        stream::answer(self.gate.service.events(before, limit), Shape::LISTING).await
    }
}
