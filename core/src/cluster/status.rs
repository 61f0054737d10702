//! How pins are doing: here, and on all peers.
//!
//! A listing over all peers is a merge of their pages in the one order that every peer lists in, so it holds a page
//! per peer and never the pinset. A peer that does not answer shows as `cluster_error` from there on.

use std::collections::{BTreeMap, VecDeque};

use async_stream::try_stream;
use cluster_types::{
    Cid, ErrorClass, GlobalPinInfo, PeerId, Pin, PinInfo, PinInfoShort, PinType, StatusFilter, Timestamp,
    TrackerStatus, WireError,
};
use futures::{StreamExt, TryStreamExt, future, stream};

use super::peers::ASKED_AT_ONCE;
use super::service::{Cluster, from_state};
use super::{Listing, Reach, ServiceResult, Window};
use crate::consensus::digest::order_key;
use crate::consensus::operation::encode_pin;
use crate::ports::{Row, Scan};
use crate::rpc::{Call, PeerClient, Reply, StatusPage};
use crate::trust::is_refusal;

/// Items of one page: small enough for a slow peer, large enough that the way there does not count.
const PAGE: u32 = 512;
/// Bytes of names, metadata and origins after which a page ends: far below the largest message.
const PAGE_BYTES: usize = 1024 * 1024;
/// Rows looked at after which a page ends, however few fitted the filter: what a peer does in a fraction of its time.
const PAGE_ROWS: usize = 16 * 1024;

impl Cluster {
    /// How one pin is doing here; the node is asked when it should have it.
    pub(super) async fn local_status(&self, cid: Cid) -> ServiceResult<PinInfo> {
        let pin = self.parts.state.pin(cid).await.map_err(|error| from_state(&error))?;
        let info = self.parts.tracker.status(cid).await.map_err(|error| from_state(&error))?;
        Ok(self.pin_info(cid, pin.as_ref(), info))
    }

    /// Completes what the tracker says with who says it.
    pub(super) fn pin_info(&self, cid: Cid, pin: Option<&Pin>, info: PinInfoShort) -> PinInfo {
        let options = pin.map(|pin| pin.options.clone()).unwrap_or_default();
        PinInfo {
            cid,
            name: options.name,
            peer: self.peer,
            allocations: pin.map(|pin| pin.allocations.clone()).unwrap_or_default(),
            origins: options.origins,
            created: pin.map_or(Timestamp::ZERO, |pin| pin.timestamp),
            metadata: options.metadata,
            info: self.named(&self.peer, info),
        }
    }

    /// Adds the names of a peer and its IPFS node.
    pub(super) fn named(&self, peer: &PeerId, info: PinInfoShort) -> PinInfoShort {
        let ping = self.ping_of(peer);
        PinInfoShort {
            peername: ping.peer_name,
            ipfs_peer_id: ping.ipfs_id,
            ipfs_peer_addresses: ping.ipfs_addresses,
            ..info
        }
    }

    /// One page of this peer's pins that are doing as the filter says.
    pub(super) async fn local_page(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: u32,
    ) -> ServiceResult<StatusPage> {
        let limit = usize::try_from(limit.min(PAGE)).unwrap_or(1).max(1);
        let mut rows = self.parts.state.scan(scan_for(filter, after));
        let mut page = StatusPage { items: Vec::new(), next: None };
        let (mut looked_at, mut bytes) = (0, 0);
        while let Some(row) = rows.try_next().await.map_err(|error| from_state(&error))? {
            looked_at += 1;
            let info = self.row_info(&row);
            if filter.matches(info.status) {
                bytes += row.pin.as_ref().map_or(0, |pin| encode_pin(pin).len());
                page.items.push(self.pin_info(row.cid, row.pin.as_ref(), info));
            }
            if page.items.len() == limit || bytes >= PAGE_BYTES || looked_at == PAGE_ROWS {
                page.next = Some(row.cid);
                break;
            }
        }
        Ok(page)
    }

    fn row_info(&self, row: &Row) -> PinInfoShort {
        self.parts.tracker.describe(row.cid, row.pin.as_ref(), row.tracked.as_ref())
    }

    pub(super) async fn status_of(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        self.about(cid, reach, Call::Status { cid }).await
    }

    /// Asks the peers that have a say about a pin, and puts their answers together.
    pub(super) async fn about(&self, cid: Cid, reach: Reach, call: Call) -> ServiceResult<GlobalPinInfo> {
        let pin = self.parts.state.pin(cid).await.map_err(|error| from_state(&error))?;
        let members = match reach {
            Reach::Local => vec![self.peer],
            Reach::Cluster => self.members(),
        };
        let (asked, remote): (Vec<PeerId>, Vec<PeerId>) = members.into_iter().partition(|peer| {
            reach == Reach::Local || pin.as_ref().is_none_or(|pin| pin.is_allocated_to(peer) || *peer == self.peer)
        });
        let mut global = GlobalPinInfo::from_pin_info(&self.pin_info(cid, pin.as_ref(), PinInfoShort::default()));
        let created = global.created;
        // A meta pin is the same everywhere: nobody holds it, and its shards have statuses of their own.
        let is_meta = pin.is_some_and(|pin| pin.kind == PinType::Meta);
        let status = if is_meta { TrackerStatus::Sharded } else { TrackerStatus::Remote };
        for peer in remote {
            let info = PinInfoShort { status, timestamp: created, ..PinInfoShort::default() };
            global.add(&peer, self.named(&peer, info));
        }
        let call = &call;
        let answers: Vec<_> = stream::iter(asked)
            .map(|peer| async move { (peer, self.ask_connected(peer, call).await) })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect()
            .await;
        for (peer, answer) in answers {
            let info = match answer {
                Ok(Reply::Status(info)) => info.info,
                Ok(_) => self.cluster_error(&peer, PeerClient::misfit(peer).message),
                Err(error) if reach == Reach::Local => return Err(error),
                // As in the original: what a peer keeps from this one is left out, and is no error.
                Err(error) if is_refusal(&error) => continue,
                Err(error) => self.cluster_error(&peer, error.message),
            };
            global.add(&peer, info);
        }
        Ok(global)
    }

    pub(super) fn cluster_error(&self, peer: &PeerId, error: String) -> PinInfoShort {
        let info = PinInfoShort {
            status: TrackerStatus::ClusterError,
            timestamp: self.parts.clock.now(),
            error,
            ..PinInfoShort::default()
        };
        self.named(peer, info)
    }

    pub(super) fn list_statuses(&self, filter: StatusFilter, reach: Reach, window: Window) -> Listing<GlobalPinInfo> {
        // Nobody is asked for more than is shown.
        let limit = window.limit.and_then(|limit| u32::try_from(limit).ok()).map_or(PAGE, |limit| limit.min(PAGE));
        let first = window.after;
        window.cut(self.merged(reach, move |after| Call::StatusPage {
            filter: filter.bits(),
            after: after.or(first),
            limit,
        }))
    }

    /// Merges the pages of all peers into one listing.
    pub(super) fn merged(
        &self,
        reach: Reach,
        call: impl Fn(Option<Cid>) -> Call + Send + Sync + 'static,
    ) -> Listing<GlobalPinInfo> {
        let cluster = self.clone();
        Box::pin(try_stream! {
            let peers = match reach {
                Reach::Local => vec![cluster.peer],
                Reach::Cluster => cluster.members(),
            };
            let mut sources: Vec<Source> = peers.into_iter().map(Source::new).collect();
            let mut failed: BTreeMap<PeerId, String> = BTreeMap::new();
            let mut listed = false;
            loop {
                let refills = sources.iter_mut().map(|source| source.refill(&cluster, &call));
                for result in future::join_all(refills).await {
                    if let Err((peer, error)) = result {
                        if reach == Reach::Local {
                            Err(error.clone())?;
                        }
                        if !is_refusal(&error) {
                            failed.insert(peer, error.message);
                        }
                    }
                }
                sources.retain(|source| !source.items.is_empty());
                let Some(least) = sources.iter().filter_map(Source::key).min() else { break };
                let mut global: Option<GlobalPinInfo> = None;
                for source in sources.iter_mut().filter(|source| source.key().as_ref() == Some(&least)) {
                    if let Some(info) = source.items.pop_front() {
                        let global = global.get_or_insert_with(|| GlobalPinInfo::from_pin_info(&info));
                        global.add(&source.peer, info.info);
                    }
                }
                if let Some(mut global) = global {
                    for (peer, error) in &failed {
                        global.add(peer, cluster.cluster_error(peer, error.clone()));
                    }
                    listed = true;
                    yield global;
                }
            }
            // Nobody had anything to list, and somebody could not be asked: silence would look like health.
            if let Some((peer, error)) = failed.into_iter().next().filter(|_| !listed) {
                Err(WireError::new(ErrorClass::Unavailable, format!("the listing lacks peer {peer}: {error}")))?;
            }
        })
    }
}

/// The cheapest scan that shows every row which can be doing as the filter says.
///
/// Everything this peer was given or still has to drop has a record, so most statuses are found by the index of
/// records; only what others hold and meta pins have none. What is in neither the pinset nor the records is unpinned,
/// and has no row at all.
fn scan_for(filter: StatusFilter, after: Option<Cid>) -> Scan {
    use TrackerStatus as S;
    if filter == StatusFilter::ALL || filter.matches_any(&[S::Remote, S::Sharded]) {
        return Scan::All { after };
    }
    let mut stored = vec![];
    if filter.matches(S::Pinned) {
        stored.push(S::Pinned);
    }
    if filter.matches(S::UnexpectedlyUnpinned) {
        stored.push(S::UnexpectedlyUnpinned);
    }
    // What is under way stands in the store as what it was before.
    if filter.matches_any(&[S::PinQueued, S::Pinning, S::PinError]) {
        stored.extend([S::PinQueued, S::Pinning, S::PinError, S::UnexpectedlyUnpinned]);
    }
    if filter.matches_any(&[S::UnpinQueued, S::Unpinning, S::UnpinError]) {
        stored.extend([S::UnpinQueued, S::Unpinning, S::UnpinError]);
    }
    if stored.is_empty() {
        // No record has this status.
        stored.push(S::ClusterError);
    }
    Scan::ByStatus { filter: StatusFilter::of(&stored), after }
}

/// One peer's listing: the page at hand, and where it goes on.
struct Source {
    peer: PeerId,
    items: VecDeque<PinInfo>,
    next: Option<Cid>,
    begun: bool,
}

impl Source {
    fn new(peer: PeerId) -> Self {
        Self { peer, items: VecDeque::new(), next: None, begun: false }
    }

    fn key(&self) -> Option<Vec<u8>> {
        self.items.front().map(|info| order_key(&info.cid))
    }

    /// Fetches the next page when this one is used up and there is one.
    async fn refill(
        &mut self,
        cluster: &Cluster,
        call: &(impl Fn(Option<Cid>) -> Call + Sync),
    ) -> Result<(), (PeerId, WireError)> {
        while self.items.is_empty() && (!self.begun || self.next.is_some()) {
            let asked = cluster.ask_connected(self.peer, &call(self.next)).await;
            self.begun = true;
            let before = self.next.take();
            match asked {
                Ok(Reply::Page(page)) => {
                    // Whoever does not get on would keep the listing for ever.
                    let further = |next: &Cid| before.is_none_or(|before| order_key(&before) < order_key(next));
                    self.next = page.next.filter(further);
                    self.items = page.items.into();
                }
                Ok(_) => return Err((self.peer, PeerClient::misfit(self.peer))),
                Err(error) => return Err((self.peer, error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_record_needs_the_whole_pinset() {
        use TrackerStatus as S;
        let through_index = |statuses: &[TrackerStatus]| match scan_for(StatusFilter::of(statuses), None) {
            Scan::ByStatus { filter, .. } => Some(filter),
            Scan::All { .. }
            | Scan::ByPeer { .. }
            | Scan::Expiring { .. }
            | Scan::Requested { .. }
            | Scan::ByName { .. }
            | Scan::ByMeta { .. } => None,
        };
        for whole in [S::Remote, S::Sharded] {
            assert_eq!(through_index(&[S::Pinned, whole]), None, "{whole}");
        }
        assert_eq!(through_index(&[]), None, "no filter");
        let lost = through_index(&[S::UnexpectedlyUnpinned]).unwrap();
        assert_eq!(lost, StatusFilter::of(&[S::UnexpectedlyUnpinned]));
        assert!(through_index(&[S::Pinning]).unwrap().matches(S::UnexpectedlyUnpinned), "it is pinned again");
        for nowhere in [S::Unpinned, S::ClusterError] {
            assert_eq!(through_index(&[nowhere]), Some(StatusFilter::of(&[S::ClusterError])), "{nowhere}");
        }
    }
}
