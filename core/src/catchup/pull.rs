//! Pulls shards from donors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{ErrorClass, PeerId, WireError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::plan::{Batch, End, Plan, Step};
use super::wire::{Ask, Part, PartKind, Told, Wanted};
use crate::consensus::digest::{SHARDS, shard_of};
use crate::consensus::operation::{decode_pin, encode_pin};
use crate::crdt::manifest::Manifest;
use crate::crdt::packed::{Change, unpack};
use crate::crdt::ranges::{Difference, Listing, Ranges};
use crate::crdt::{RecordHash, Records};
use crate::ports::StateError;
use crate::rpc::{Call, PeerClient, Reply};

/// Questions in flight at a time.
pub const IN_FLIGHT: usize = 4;
/// How long a donor may take for an answer: it serves one at a time, and rests, and says so when too many wait. A
/// question that got lost is asked again after that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// How long nothing may come before a pull is given up: donors are all gone, or have gone on too far.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records in one answer, at least: shards of a small pinset are gathered up to that.
const FEW_RECORDS: u64 = 64;
/// Most records of one shard that are taken: sixteen times what a shard of a billion pins has.
pub(super) const MAX_SHARD_RECORDS: usize = 4 * 1024 * 1024;

/// What came of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// Some records, each as it is to be; the others are as they were.
    Changes(Vec<Change>),
    /// All records.
    Whole(Records),
}

/// What became of what came of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The shard is as the manifest says.
    Right,
    /// It would not be: whoever gave it told something wrong.
    Wrong,
    /// The changes are to something that is not here any more, because the state has moved meanwhile: nobody's fault.
    Moved,
}

impl Kept {
    fn end(self) -> End {
        match self {
            Self::Right => End::Kept,
            Self::Wrong => End::Wrong,
            Self::Moved => End::BaseGone,
        }
    }
}

/// Where shards are brought to.
#[async_trait]
pub trait Gather: Send + Sync {
    /// The log index as of which a shard is here; `None` when nothing of it is.
    async fn base(&self, shard: u16) -> Result<Option<u64>, StateError>;
    /// The records of a shard that are here.
    async fn records(&self, shard: u16) -> Result<Records, StateError>;
    /// Keeps what came, if the shard then is as the manifest says; tells whether it is. Changes are to what was here when
    /// [`Gather::base`] or [`Gather::records`] told of it.
    async fn keep(&self, shard: u16, what: Gathered) -> Result<Kept, StateError>;
}

/// A pull came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// Nobody gives what the manifest says any more.
    #[error("nobody gives the shards as of log index {index} any more; {left} are missing")]
    NobodyServes {
        /// The index asked about.
        index: u64,
        /// How many shards are missing.
        left: usize,
    },
    /// The store failed.
    #[error("what came cannot be kept")]
    Store(#[from] StateError),
}

/// What a pull is about.
pub struct Pull<'a> {
    /// How donors are asked.
    pub client: &'a PeerClient,
    /// The log index of the manifest.
    pub index: u64,
    /// What every shard is to be.
    pub manifest: &'a Manifest,
    /// Who may be asked now: asked for before every question.
    pub donors: &'a (dyn Fn() -> Vec<PeerId> + Sync),
    /// Who is asked only for what none of the others gives now.
    pub spare: Option<PeerId>,
    /// Where the shards are brought to.
    pub gather: &'a dyn Gather,
    /// Is told the number of shards and bytes that came with each answer.
    pub came: &'a (dyn Fn(usize, u64) + Sync),
}

impl std::fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("index", &self.index).finish_non_exhaustive()
    }
}

/// How a question ended.
struct Answer {
    batch: Batch,
    /// What became of each shard; `None`: the donor could not answer.
    ends: Option<Vec<(u16, End)>>,
    bytes: u64,
}

impl Pull<'_> {
    /// Brings `shards` to what the manifest says.
    pub async fn run(&self, shards: &[u16]) -> Result<(), PullError> {
        let mut plan = Plan::sparing(self.spare);
        for shard in shards {
            plan.want(*shard, self.gather.base(*shard).await?);
        }
        let enough = (self.manifest.pins() / u64::from(SHARDS)).max(FEW_RECORDS);
        let mut in_flight = FuturesUnordered::new();
        let mut last_came = Instant::now();
        while plan.left() > 0 {
            plan.set_donors(&(self.donors)(), Instant::now());
            while in_flight.len() < IN_FLIGHT {
                let next = plan.next(Instant::now(), enough, |shard| self.manifest.pins_in(shard));
                let Some(batch) = next else { break };
                in_flight.push(self.question(batch, enough));
            }
            let patience = last_came + PATIENCE;
            let until = plan.next_try(Instant::now()).map_or(patience, |at| at.min(patience));
            let answer = tokio::select! {
                biased;
                Some(answer) = in_flight.next() => Some(answer?),
                () = sleep_until(until) => None,
            };
            if let Some(answer) = answer {
                let kept = self.settle(&mut plan, answer)?;
                if kept > 0 {
                    last_came = Instant::now();
                }
            }
            if last_came.elapsed() >= PATIENCE {
                return Err(self.nobody(&plan));
            }
        }
        Ok(())
    }

    fn nobody(&self, plan: &Plan) -> PullError {
        PullError::NobodyServes { index: self.index, left: plan.left() }
    }

    /// Takes an answer into the plan; returns how many shards came.
    fn settle(&self, plan: &mut Plan, answer: Answer) -> Result<usize, PullError> {
        let Answer { batch, ends, bytes } = answer;
        let (donor, mut kept, mut worth_it) = (batch.donor, 0, true);
        let Some(ends) = ends else {
            plan.failed(donor, Instant::now());
            for shard in &batch.shards {
                plan.settle(*shard, donor, End::NotReached);
            }
            return Ok(0);
        };
        plan.answered(donor);
        let mut ends: BTreeMap<u16, End> = ends.into_iter().collect();
        for shard in &batch.shards {
            let end = ends.remove(shard).unwrap_or(End::NotReached);
            kept += usize::from(end == End::Kept);
            if end == End::Wrong {
                tracing::warn!(peer = %donor, shard, index = self.index, "what a peer gave of a shard is not what it should be; asking another one");
            }
            worth_it &= plan.settle(*shard, donor, end);
        }
        (self.came)(kept, bytes);
        if worth_it { Ok(kept) } else { Err(self.nobody(plan)) }
    }

    async fn question(&self, batch: Batch, enough: u64) -> Result<Answer, StateError> {
        let enough = u32::try_from(enough).unwrap_or(u32::MAX);
        let mut bytes = 0;
        let ends = match batch.step {
            Step::Since(base) => {
                let what = Wanted::Since { base, shards: batch.shards.clone() };
                let told = self.ask(batch.donor, what, enough, &mut bytes).await;
                self.keep_changes(told, &batch.shards, |_, records| records).await?
            }
            Step::Whole => self.whole(&batch, enough, &mut bytes).await?,
            Step::Compare => self.compare(&batch, enough, &mut bytes).await?,
        };
        Ok(Answer { batch, ends, bytes })
    }

    /// Asks a donor; `None` when it cannot answer.
    async fn ask(&self, donor: PeerId, what: Wanted, enough: u32, bytes: &mut u64) -> Option<Told> {
        let ask = Ask { index: self.index, enough, what };
        match self.client.ask(donor, &Call::Shards(ask), ANSWER_TIMEOUT).await {
            Ok(Reply::Shards(told)) => {
                *bytes += told.len();
                Some(told).filter(|told| !matches!(told, Told::Behind | Told::Busy))
            }
            Ok(_) => None,
            Err(WireError { class, message }) => {
                let unreachable = matches!(class, ErrorClass::Unavailable | ErrorClass::Unknown);
                tracing::debug!(peer = %donor, unreachable, error = message, "a peer gave no shards");
                None
            }
        }
    }

    /// Keeps the parts of an answer; `adjust` adds what the records say of others.
    async fn keep_changes(
        &self,
        told: Option<Told>,
        asked: &[u16],
        adjust: impl Fn(u16, Vec<Change>) -> Vec<Change>,
    ) -> Result<Option<Vec<(u16, End)>>, StateError> {
        let Some(told) = told else { return Ok(None) };
        let Some(parts) = open(told, asked) else { return Ok(Some(all(asked, End::Wrong))) };
        let mut ends = Vec::new();
        for (shard, kind, records) in parts {
            let end = match kind {
                PartKind::Complete => self.gather.keep(shard, Gathered::Changes(adjust(shard, records))).await?.end(),
                // So many changes of one shard: all of it is not much more.
                PartKind::More | PartKind::TooMuch => End::TooMuch,
                PartKind::BaseGone => End::BaseGone,
                PartKind::IndexGone => End::IndexGone,
            };
            ends.push((shard, end));
        }
        Ok(Some(ends))
    }

    async fn whole(&self, batch: &Batch, enough: u32, bytes: &mut u64) -> Result<Option<Vec<(u16, End)>>, StateError> {
        let (mut shards, mut ends) = (batch.shards.clone(), Vec::new());
        let mut begun = Records::new();
        loop {
            let skip = u32::try_from(begun.len()).unwrap_or(u32::MAX);
            let told = self.ask(batch.donor, Wanted::Whole { shards: shards.clone(), skip }, enough, bytes).await;
            let Some(told) = told else { return Ok((!ends.is_empty()).then_some(ends)) };
            let Some(parts) = open(told, &shards) else { return Ok(Some(all(&shards, End::Wrong))) };
            let mut more = None;
            for (shard, kind, records) in parts {
                let mut records: Records =
                    records.into_iter().filter_map(|(cid, record)| Some((cid, record?))).collect();
                let mut had = 0;
                if Some(&shard) == shards.first() {
                    had = begun.len();
                    records.append(&mut begun);
                }
                let end = match kind {
                    PartKind::Complete => self.gather.keep(shard, Gathered::Whole(records)).await?.end(),
                    // Whoever gives the same again would keep the question for ever.
                    PartKind::More if records.len() > had && records.len() < MAX_SHARD_RECORDS => {
                        more = Some(shard);
                        begun = records;
                        continue;
                    }
                    PartKind::More | PartKind::BaseGone | PartKind::TooMuch => End::Wrong,
                    PartKind::IndexGone => End::IndexGone,
                };
                ends.push((shard, end));
            }
            let Some(shard) = more else { return Ok(Some(ends)) };
            shards = vec![shard];
        }
    }

    async fn compare(
        &self,
        batch: &Batch,
        enough: u32,
        bytes: &mut u64,
    ) -> Result<Option<Vec<(u16, End)>>, StateError> {
        let mut sums = Vec::new();
        for shard in &batch.shards {
            let records = self.gather.records(*shard).await?;
            sums.push((*shard, Bytes::from(Ranges::of(&records).encode())));
        }
        let told = self.ask(batch.donor, Wanted::Compare { shards: sums }, enough, bytes).await;
        let listings = match told {
            Some(Told::Listings { listings }) => listings,
            Some(_) => return Ok(Some(all(&batch.shards, End::Wrong))),
            None => return Ok(None),
        };
        let (mut ends, mut differences) = (Vec::new(), BTreeMap::new());
        for (shard, kind, listing) in listings {
            let end = match (kind, Listing::decode(&listing)) {
                _ if !batch.shards.contains(&shard) => continue,
                (PartKind::Complete, Ok(listing)) => {
                    differences.insert(shard, listing.compare(&self.gather.records(shard).await?));
                    continue;
                }
                (PartKind::Complete | PartKind::More, _) => End::Wrong,
                (PartKind::TooMuch | PartKind::BaseGone, _) => End::TooMuch,
                (PartKind::IndexGone, _) => End::IndexGone,
            };
            ends.push((shard, end));
        }
        if differences.is_empty() {
            return Ok(Some(ends));
        }
        let shards: Vec<u16> = differences.keys().copied().collect();
        let hashes = |difference: &Difference| difference.fetch.iter().copied().map(RecordHash::get).collect();
        let wanted = differences.iter().map(|(shard, difference)| (*shard, hashes(difference))).collect();
        let told = self.ask(batch.donor, Wanted::Records { shards: wanted }, u32::MAX, bytes).await;
        let adjust = |shard: u16, mut records: Vec<Change>| {
            let cids: BTreeSet<_> = records.iter().map(|(cid, _)| *cid).collect();
            let deleted = differences.get(&shard).map(|difference| difference.deletions(&cids)).unwrap_or_default();
            records.extend(deleted.into_iter().map(|cid| (cid, None)));
            records
        };
        match self.keep_changes(told, &shards, adjust).await? {
            Some(more) => ends.extend(more),
            None if ends.is_empty() => return Ok(None),
            None => {}
        }
        Ok(Some(ends))
    }
}

impl Told {
    /// About how many bytes it came as.
    fn len(&self) -> u64 {
        let bytes = match self {
            Self::Shards { parts, packed } => packed.len() + 7 * parts.len(),
            Self::Listings { listings } => listings.iter().map(|(_, _, listing)| listing.len() + 7).sum(),
            Self::Behind | Self::Busy => 1,
        };
        bytes as u64
    }
}

fn all(shards: &[u16], end: End) -> Vec<(u16, End)> {
    shards.iter().map(|shard| (*shard, end)).collect()
}

/// Takes an answer apart; `None` when it makes no sense: of shards that were not asked about, or with records that are no
/// pins, or not in canonical form, or of another shard.
pub(super) fn open(told: Told, asked: &[u16]) -> Option<Vec<(u16, PartKind, Vec<Change>)>> {
    let Told::Shards { parts, packed } = told else { return None };
    let in_order = parts.is_sorted_by(|(left, ..), (right, ..)| left < right);
    if !in_order || parts.iter().any(|(shard, ..)| !asked.contains(shard)) {
        return None;
    }
    let total = parts.iter().try_fold(0_usize, |sum, (.., count)| sum.checked_add(usize::try_from(*count).ok()?))?;
    let mut records = unpack(&packed, total).ok()?.into_iter();
    if records.len() != total {
        return None;
    }
    let part = |(shard, kind, count): Part| {
        let records: Vec<Change> = records.by_ref().take(usize::try_from(count).ok()?).collect();
        let sound = records.iter().all(|change| is_sound(shard, change));
        let distinct: BTreeSet<_> = records.iter().map(|(cid, _)| cid).collect();
        (sound && distinct.len() == records.len()).then_some((shard, kind, records))
    };
    parts.into_iter().map(part).collect()
}

fn is_sound(shard: u16, (cid, record): &Change) -> bool {
    let canonical = |record: &Bytes| decode_pin(record).is_ok_and(|pin| pin.cid == *cid && encode_pin(&pin) == *record);
    shard_of(cid) == shard && record.as_ref().is_none_or(canonical)
}
