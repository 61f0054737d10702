//! Pinning, unpinning and how pins are doing, by CID or by path.

use std::sync::Arc;

use cluster_core::cluster::{Listing, Reach, Search, Window};
use cluster_types::{Cid, GlobalPinInfo, PinTypeFilter, StatusFilter, TrackerStatus};
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_DISPOSITION, HeaderValue};

use super::{Rest, committed, parse_cid, reach, window};
use crate::error::Failure;
use crate::options;
use crate::query::Query;
use crate::reply::{self, Reply};
use crate::stream::{self, Shape};

/// What an archive is; the parameters are those of trustless gateways.
const CAR: HeaderValue = HeaderValue::from_static("application/vnd.ipld.car; version=1; order=dfs; dups=n");
/// How many pins of one request are asked about at once.
const LOOKUPS: usize = 16;

/// Whether most pins may be in one of these statuses: then what is searched for is less than what is in them.
fn is_usual(filter: StatusFilter) -> bool {
    [TrackerStatus::Pinned, TrackerStatus::Remote].into_iter().any(|status| filter.matches(status))
}

impl Rest {
    /// `GET /pins`.
    pub(super) async fn statuses(&self, query: &Query) -> Reply {
        let reach = reach(query);
        let (search, window) = (window::search(query)?, window::parse(query)?);
        if let Some(list) = query.value("cids") {
            if window != Window::ALL || !search.is_empty() {
                return Err(Failure::bad_request("parameter cids does not go together with limit, after or a search"));
            }
            let cids = list.split(',').map(parse_cid).collect::<Result<Vec<Cid>, Failure>>()?;
            let service = Arc::clone(&self.gate.service);
            let lookups = futures::stream::iter(cids)
                .map(move |cid| {
                    let service = Arc::clone(&service);
                    async move { service.status(cid, reach).await }
                })
                .buffer_unordered(LOOKUPS);
            return stream::answer(lookups, Shape::LISTING).await;
        }
        let filter = StatusFilter::parse(query.value("filter").unwrap_or_default())
            .ok_or_else(|| Failure::bad_request("invalid filter value"))?;
        if search.is_empty() {
            return stream::answer(self.gate.service.statuses(filter, reach, window), Shape::LISTING).await;
        }
        if !is_usual(filter) {
            return stream::answer(self.statuses_searched(search, filter, reach, window), Shape::LISTING).await;
        }
        self.check_place(&search, window).await?;
        stream::answer(self.statuses_found(search, filter, reach, window), Shape::LISTING).await
    }

    /// Of the pins that are in one of these statuses, those that are searched for: it costs no more than without the
    /// search.
    fn statuses_searched(
        &self,
        search: Search,
        filter: StatusFilter,
        reach: Reach,
        window: Window,
    ) -> Listing<GlobalPinInfo> {
        let infos = self.gate.service.statuses(filter, reach, Window { limit: None, ..window });
        let infos = infos.try_filter(move |info| std::future::ready(search.fits(&info.name, &info.metadata)));
        infos.take(window.limit.unwrap_or(usize::MAX)).boxed()
    }

    /// How the pins that are searched for are doing: they are found in the shared state, which is here, and asked about one
    /// by one.
    fn statuses_found(
        &self,
        search: Search,
        filter: StatusFilter,
        reach: Reach,
        window: Window,
    ) -> Listing<GlobalPinInfo> {
        let service = Arc::clone(&self.gate.service);
        let found = self.gate.service.search(search, PinTypeFilter::ALL, Window { limit: None, ..window });
        let infos = found
            .map(move |pin| {
                let service = Arc::clone(&service);
                async move { service.status(pin?.cid, reach).await }
            })
            .buffered(LOOKUPS)
            .try_filter_map(move |mut info| {
                info.peer_map.retain(|_, peer| filter.matches(peer.status));
                std::future::ready(Ok((!info.peer_map.is_empty()).then_some(info)))
            });
        infos.take(window.limit.unwrap_or(usize::MAX)).boxed()
    }

    /// `GET /pins/{cid}`.
    pub(super) async fn status(&self, cid: &str, query: &Query) -> Reply {
        reply::json(&self.gate.service.status(parse_cid(cid)?, reach(query)).await?)
    }

    /// `GET /pins/{cid}/car`.
    pub(super) async fn car(&self, cid: &str) -> Reply {
        let cid = parse_cid(cid)?;
        let pieces = self.gate.service.car(cid).await?;
        let mut response = stream::bytes(pieces, CAR).await?;
        let name = format!("attachment; filename=\"{cid}.car\"");
        let name = HeaderValue::from_str(&name).expect("the text of a CID has letters and digits only");
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
        Ok(response)
    }

    /// `POST /pins/{cid}`.
    pub(super) async fn pin(&self, cid: &str, query: &Query) -> Reply {
        let cid = parse_cid(cid)?;
        let options = options::pin_options(query, self.gate.clock.now())?;
        committed(&self.gate.detached(|service| async move { service.pin(cid, options).await }).await?)
    }

    /// `POST /pins/{ipfs|ipns|ipld}/{path…}`.
    pub(super) async fn pin_path(&self, path: String, query: &Query) -> Reply {
        check_path(&path)?;
        let options = options::pin_options(query, self.gate.clock.now())?;
        committed(&self.gate.detached(|service| async move { service.pin_path(&path, options).await }).await?)
    }

    /// `DELETE /pins/{cid}`.
    pub(super) async fn unpin(&self, cid: &str) -> Reply {
        let cid = parse_cid(cid)?;
        committed(&self.gate.detached(|service| async move { service.unpin(cid).await }).await?)
    }

    /// `DELETE /pins/{ipfs|ipns|ipld}/{path…}`.
    pub(super) async fn unpin_path(&self, path: String) -> Reply {
        check_path(&path)?;
        committed(&self.gate.detached(|service| async move { service.unpin_path(&path).await }).await?)
    }
}

/// Refuses what cannot be an IPFS path: `/ipfs/` and `/ipld/` begin with a CID, `/ipns/` with a name.
fn check_path(path: &str) -> Result<(), Failure> {
    let mut parts = path.split('/').skip(1);
    let (space, root) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match space {
        "ipfs" | "ipld" => {
            let parsed = root.parse::<Cid>();
            parsed.map(drop).map_err(|error| Failure::bad_request(format!("error parsing path: {error}")))
        }
        "ipns" if !root.is_empty() => Ok(()),
        _ => Err(Failure::bad_request("error parsing path: it needs a namespace and a root")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_needs_a_root_that_fits_its_namespace() {
        let cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
        for good in [format!("/ipfs/{cid}"), format!("/ipld/{cid}/a/b"), "/ipns/example.org/x".to_owned()] {
            assert_eq!(check_path(&good), Ok(()), "{good}");
        }
        for bad in ["/ipfs/nonsense", "/ipfs", "/ipns", "/ipfs/", "/other/x", ""] {
            assert!(check_path(bad).unwrap_err().message.starts_with("error parsing path: "), "{bad}");
        }
    }
}
