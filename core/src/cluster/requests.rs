//! The pinning service: users' requests, each with an id of its own, and the pins that they keep.
//!
//! A request is part of the pin's record, so it is ordered, replicated, merged and exported with it. The leader puts
//! requests together and takes them apart; a pin that nobody else wants goes with the last of its requests.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cluster_types::{
    Cid, ErrorClass, GlobalPinInfo, Multiaddr, PeerId, Pin, PinInfoShort, PinOptions, PinType, PinningRequest,
    RequestId, RequestNumber, Timestamp, TrackerStatus, WireError,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::peers::ASKED_AT_ONCE;
use super::service::{Cluster, from_state, not_pinned};
use super::{Committed, Listing, ServiceResult};
use crate::add::AddHost;
use crate::consensus::Request;
use crate::ports::{Row, Scan, TrackerRecord};
use crate::rpc::{Call, PeerClient, Reply, StatusPage};
use crate::trust::is_refusal;

/// The most pins whose statuses are asked for at a time.
pub const STATUSES_AT_ONCE: usize = 256;

/// What a user of the pinning service wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPin {
    /// Random: of the request, unless it takes the place of another.
    pub id: RequestNumber,
    /// The content.
    pub cid: Cid,
    /// Who wants it.
    pub user: String,
    /// A name for people.
    pub name: String,
    /// Free text by key.
    pub meta: BTreeMap<String, String>,
    /// Where the content can be fetched.
    pub origins: Vec<Multiaddr>,
}

/// Which of the requests of a user are listed, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestsOf {
    /// The user.
    pub user: String,
    /// Only those with exactly this name.
    pub name: Option<String>,
    /// Only those made before.
    pub before: Option<Timestamp>,
    /// Only those made after.
    pub after: Option<Timestamp>,
}

/// A request and the pin that it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The request.
    pub request: PinningRequest,
    /// The pin.
    pub pin: Pin,
}

impl Requested {
    /// The id as users see it.
    pub fn id(&self) -> RequestId {
        RequestId { number: self.request.id, cid: self.pin.cid }
    }
}

/// What a cluster can do for the users of its pinning service.
#[async_trait]
pub trait PinningService: Send + Sync + 'static {
    /// Makes a request. With `instead_of`, that request of the same user is taken back once the new one is kept; asked again
    /// after a failure in between, this comes to the same request.
    async fn request(&self, wanted: WantedPin, instead_of: Option<RequestId>) -> ServiceResult<Committed<Requested>>;
    /// Takes a request back: the last one takes the pin with it, unless somebody wants it by other means.
    async fn withdraw(&self, user: &str, id: RequestId) -> ServiceResult<Committed<Pin>>;
    /// The requests of a user, newest first: what it costs depends on what is found, and not on what there is.
    fn requests(&self, which: RequestsOf) -> Listing<Requested>;
    /// One pin, with its requests.
    async fn requested(&self, cid: Cid) -> ServiceResult<Pin>;
    /// How some pins are doing, in the order given, at most [`STATUSES_AT_ONCE`]; the nodes are not asked.
    async fn statuses_of(&self, pins: &[Pin]) -> ServiceResult<Vec<GlobalPinInfo>>;
}

#[async_trait]
impl PinningService for Cluster {
    async fn request(&self, wanted: WantedPin, instead_of: Option<RequestId>) -> ServiceResult<Committed<Requested>> {
        self.writable()?;
        let former = match instead_of {
            Some(id) => Some(self.request_of(&wanted.user, id).await?),
            None => None,
        };
        let factor = PinOptions::default().replication(self.parts.settings.default_replication);
        let (min, max) = factor.map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?.as_pair();
        let id = instead_of.map_or(wanted.id, |former| successor(former, &wanted));
        let WantedPin { id: _, cid, user, name, meta, origins } = wanted;
        let options = PinOptions {
            replication_factor_min: min,
            replication_factor_max: max,
            name: name.clone(),
            metadata: meta.clone(),
            origins: origins.clone(),
            // Whoever holds the former content fetches less of the new one.
            pin_update: former.as_ref().map(|former| former.cid).filter(|former| *former != cid),
            user_allocations: former.map(|former| former.allocations).unwrap_or_default(),
            ..PinOptions::default()
        };
        let created = self.parts.clock.now().whole_millis();
        let request = PinningRequest { id, user: user.clone(), name, meta, origins, created };
        let pin = Pin { requests: vec![request], only_requested: true, ..Pin::new(cid, options) };
        let Committed { value: pin, commit } = self.submit_pin(pin).await?;
        let request = pin.request(&id).cloned().ok_or_else(not_pinned)?;
        if let Some(former) = instead_of {
            self.withdraw(&user, former).await?;
        }
        Ok(Committed { value: Requested { request, pin }, commit })
    }

    async fn withdraw(&self, user: &str, id: RequestId) -> ServiceResult<Committed<Pin>> {
        self.writable()?;
        let RequestId { number, cid } = id;
        self.submit(Request::Withdraw { cid, user: user.to_owned(), id: number }).await
    }

    fn requests(&self, which: RequestsOf) -> Listing<Requested> {
        let RequestsOf { user, name, before, after } = which;
        let rows = self.parts.state.scan(Scan::Requested { user, name, before, after });
        let requested = |row: Row| {
            let (pin, id) = row.pin.zip(row.request)?;
            let request = pin.request(&id).cloned()?;
            Some(Requested { request, pin })
        };
        let rows = rows.map_err(|error| from_state(&error));
        rows.try_filter_map(move |row| std::future::ready(Ok(requested(row)))).boxed()
    }

    async fn requested(&self, cid: Cid) -> ServiceResult<Pin> {
        AddHost::pinned(self, cid).await?.ok_or_else(not_pinned)
    }

    async fn statuses_of(&self, pins: &[Pin]) -> ServiceResult<Vec<GlobalPinInfo>> {
        let pins = &pins[..pins.len().min(STATUSES_AT_ONCE)];
        let members = if self.follows() { vec![self.peer] } else { self.members() };
        let unknown = |pin: &Pin| self.pin_info(pin.cid, Some(pin), PinInfoShort::default());
        let mut all: Vec<GlobalPinInfo> = pins.iter().map(|pin| GlobalPinInfo::from_pin_info(&unknown(pin))).collect();
        let asked = stream::iter(members.iter().copied()).map(|peer| async move {
            let held: Vec<Cid> = pins.iter().filter(|pin| pin.is_allocated_to(&peer)).map(|pin| pin.cid).collect();
            if held.is_empty() {
                return (peer, Ok(Vec::new()));
            }
            (peer, self.statuses_at(peer, held).await)
        });
        let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_ONCE).collect().await;
        for (peer, answer) in answers {
            let answer = match answer {
                Err(error) if is_refusal(&error) => continue,
                answer => answer,
            };
            let told: ServiceResult<BTreeMap<Cid, PinInfoShort>> =
                answer.map(|infos| infos.into_iter().map(|info| (info.cid, info.info)).collect());
            for (global, pin) in all.iter_mut().zip(pins) {
                let info = match &told {
                    Ok(infos) if pin.is_allocated_to(&peer) => infos.get(&pin.cid).cloned(),
                    Err(error) if pin.is_allocated_to(&peer) => Some(self.cluster_error(&peer, error.message.clone())),
                    Ok(_) | Err(_) => None,
                };
                let elsewhere = || {
                    let status = if pin.kind == PinType::Meta { TrackerStatus::Sharded } else { TrackerStatus::Remote };
                    self.named(&peer, PinInfoShort { status, timestamp: pin.timestamp, ..PinInfoShort::default() })
                };
                global.add(&peer, info.unwrap_or_else(elsewhere));
            }
        }
        Ok(all)
    }
}

impl Cluster {
    /// The pin of a user's request.
    async fn request_of(&self, user: &str, id: RequestId) -> ServiceResult<Pin> {
        let pin = self.requested(id.cid).await?;
        let is_his = pin.request(&id.number).is_some_and(|request| request.user == user);
        if is_his { Ok(pin) } else { Err(not_pinned()) }
    }

    async fn statuses_at(&self, peer: PeerId, cids: Vec<Cid>) -> ServiceResult<Vec<cluster_types::PinInfo>> {
        let Reply::Page(page) = self.ask_connected(peer, &Call::Statuses { cids }).await? else {
            return Err(PeerClient::misfit(peer));
        };
        Ok(page.items)
    }

    /// How some pins are doing here; the node is not asked.
    pub(super) async fn local_statuses(&self, cids: Vec<Cid>) -> ServiceResult<StatusPage> {
        if cids.len() > STATUSES_AT_ONCE {
            let refusal = format!("the statuses of {} pins are too many, at most {STATUSES_AT_ONCE}", cids.len());
            return Err(WireError::new(ErrorClass::Invalid, refusal));
        }
        let (send, rows) = tokio::sync::oneshot::channel();
        let read = self.parts.state.read(Box::new(move |view| {
            let mut rows = Vec::with_capacity(cids.len());
            for cid in cids {
                rows.push((cid, view.shown(&cid)?, view.tracked(&cid)?));
            }
            drop(send.send(rows));
            Ok(())
        }));
        read.await.map_err(|error| from_state(&error))?;
        let rows = rows.await.map_err(|error| WireError::from_error(ErrorClass::Fatal, &error))?;
        let info = |(cid, pin, tracked): (Cid, Option<Pin>, Option<TrackerRecord>)| {
            let info = self.parts.tracker.describe(cid, pin.as_ref(), tracked.as_ref());
            // Whoever asks knows the pin.
            self.pin_info(cid, None, info)
        };
        Ok(StatusPage { items: rows.into_iter().map(info).collect(), next: None })
    }
}

/// The number of the request that takes the place of another: the same one however often it is asked for.
fn successor(former: RequestId, wanted: &WantedPin) -> RequestNumber {
    let mut hasher = blake3::Hasher::new_derive_key("ipfs-cluster request that takes the place of another");
    let mut part = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(bytes);
    };
    part(&former.number.0);
    part(&former.cid.to_bytes());
    part(&wanted.cid.to_bytes());
    part(wanted.user.as_bytes());
    part(wanted.name.as_bytes());
    for (key, text) in &wanted.meta {
        part(key.as_bytes());
        part(text.as_bytes());
    }
    wanted.origins.iter().for_each(|origin| part(origin.as_ref()));
    let mut number = [0; 16];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    RequestNumber(number)
}
