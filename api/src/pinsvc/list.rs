//! `GET /pins`.

use cluster_core::cluster::{Listing, NOT_PINNED, Requested, STATUSES_AT_ONCE};
use cluster_types::Pin;
use futures::{StreamExt, TryStreamExt, stream};

use super::filter::Filter;
use super::models::{PinResults, PinStatus};
use super::status::Status;
use super::{PinningApi, as_requested};
use crate::error::Failure;
use crate::reply::{self, Reply};

/// How many requests are looked at beyond those that are shown, to count them. `count` is exact for a user with fewer; for
/// others it is as many as were found, and more than are shown as long as there are more.
const COUNTED: usize = 10_000;

impl PinningApi {
    /// The newest of a user's requests that fit.
    pub(super) async fn list(&self, user: &str, filter: &Filter) -> Reply {
        let mut results = Vec::with_capacity(filter.limit.min(STATUSES_AT_ONCE));
        let (mut count, mut looked_at, mut more) = (0_u64, 0, false);
        let mut batches = self.candidates(user, filter).await?.try_chunks(STATUSES_AT_ONCE);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|stream::TryChunksError(_, error)| error)?;
            if results.len() == filter.limit && looked_at >= COUNTED {
                more = true;
                break;
            }
            looked_at += batch.len();
            let pins: Vec<Pin> = batch.iter().map(|requested| requested.pin.clone()).collect();
            let infos = self.service()?.statuses_of(&pins).await?;
            for (requested, info) in batch.iter().zip(&infos) {
                if !filter.statuses.contains(&Status::of(info)) {
                    continue;
                }
                count += 1;
                if results.len() < filter.limit {
                    results.push(PinStatus::new(self.id_of(requested), &requested.request, &requested.pin, Some(info)));
                }
            }
        }
        let shown = results.len() as u64;
        reply::json(&PinResults { count: if more { count.max(shown + 1) } else { count }, results })
    }

    /// The requests that fit but for their status, newest first.
    async fn candidates(&self, user: &str, filter: &Filter) -> Result<Listing<Requested>, Failure> {
        let fits = filter.clone();
        if filter.cids.is_empty() {
            let requests = self.service()?.requests(filter.requests_of(user));
            return Ok(requests.try_filter(move |requested| std::future::ready(fits.fits(&requested.request))).boxed());
        }
        let mut found = Vec::new();
        for cid in &filter.cids {
            let pin = match self.service()?.requested(*cid).await {
                Ok(pin) => pin,
                Err(error) if error.message == NOT_PINNED => continue,
                Err(error) => return Err(error.into()),
            };
            if self.shows_unrequested(&pin) {
                found.push(as_requested(pin));
                continue;
            }
            let own = pin.requests.iter().filter(|request| request.user == user).cloned();
            found.extend(own.map(|request| Requested { request, pin: pin.clone() }));
        }
        found.retain(|requested| filter.fits(&requested.request));
        found.sort_by_key(|requested| requested.request.place());
        Ok(stream::iter(found.into_iter().map(Ok)).boxed())
    }

    /// The id under which a request is shown.
    fn id_of(&self, requested: &Requested) -> String {
        if self.shows_unrequested(&requested.pin) { requested.pin.cid.to_string() } else { requested.id().to_string() }
    }
}
