//! What users can ask of a cluster, through any of its peers.
//!
//! [`ClusterService`] is the facade that the REST API and the calls between peers stand on. Every error is a
//! [`WireError`]: its class says what the caller may do, its message is what the user sees.

mod add;
mod allocator;
mod answer;
mod car;
mod claim;
pub mod duty;
mod events;
pub mod expiry;
mod figures;
pub mod gather;
pub mod meet;
mod peers;
mod pin;
mod recover;
pub mod repin;
mod requests;
mod search;
mod service;
mod status;
mod untrusted;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{
    AddParams, AddedOutput, Alert, Bandwidth, Cid, Commit, ConnectGraph, Event, EventPlace, GlobalPinInfo,
    GlobalRepoGc, Id, Metric, PeerId, Pin, PinOptions, PinTypeFilter, RepoStat, StateReport, StatusFilter, WireError,
};
use futures::stream::BoxStream;
use tokio::sync::mpsc;

pub use allocator::MetricAllocator;
pub use claim::Named;
pub use figures::{Figures, OrderingFigures};
pub use requests::{PinningService, Requested, RequestsOf, STATUSES_AT_ONCE, WantedPin};
pub use service::{Cluster, ClusterParts, ClusterSettings, Standing};

/// The text of every "no such pin"; clients compare it.
pub const NOT_PINNED: &str = "pin is not part of the pinset";

/// How many events an upload may be ahead of the import: 64 pieces of at most [`AddEvent::MAX_DATA`] bytes.
pub const ADD_QUEUE: usize = 64;

/// A result whose error can be shown to a user.
pub type ServiceResult<T> = Result<T, WireError>;
/// A listing; an error may come after items, and ends it.
pub type Listing<T> = BoxStream<'static, ServiceResult<T>>;

/// A write, and the proof that it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What was written.
    pub value: T,
    /// How it was accepted.
    pub commit: Commit,
}

/// Whom a question goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Every peer that has a say.
    #[default]
    Cluster,
    /// The asked peer only.
    Local,
}

/// Which part of a listing is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Only what comes after this pin, which need not be there (any more).
    pub after: Option<Cid>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Window {
    /// Everything.
    pub const ALL: Self = Self { after: None, limit: None };

    /// Ends `listing` where the window ends.
    pub(crate) fn cut<T: Send + 'static>(self, listing: Listing<T>) -> Listing<T> {
        match self.limit {
            Some(limit) => Box::pin(futures::StreamExt::take(listing, limit)),
            None => listing,
        }
    }
}

/// What is searched for; a pin must fit all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// What its name begins with.
    pub name_prefix: Option<String>,
    /// Texts of its metadata, by key.
    pub metadata: BTreeMap<String, String>,
}

impl Search {
    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.name_prefix.is_none() && self.metadata.is_empty()
    }

    /// Whether what is found comes by name: then [`Window::after`] must be a pin that is there.
    pub fn is_by_name(&self) -> bool {
        self.name_prefix.is_some() && self.metadata.is_empty()
    }

    /// Whether a pin with this name and this metadata is searched for.
    pub fn fits(&self, name: &str, metadata: &BTreeMap<String, String>) -> bool {
        let named = self.name_prefix.as_ref().is_none_or(|prefix| !name.is_empty() && name.starts_with(prefix));
        named && self.metadata.iter().all(|(key, text)| metadata.get(key) == Some(text))
    }
}

/// What an upload consists of, in order. Directories may be left out; they are made when something is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddEvent {
    /// An empty directory, or one whose entries follow.
    Directory {
        /// Path with `/` between parts, no leading slash.
        path: String,
    },
    /// A symbolic link.
    Symlink {
        /// Path of the link.
        path: String,
        /// What it points to.
        target: String,
    },
    /// A file begins; its data follows. With CAR uploads, the archive.
    File {
        /// Path of the file.
        path: String,
    },
    /// More of the file.
    Data(Bytes),
    /// The file is whole.
    EndOfFile,
}

impl AddEvent {
    /// The most bytes one [`AddEvent::Data`] may hold.
    pub const MAX_DATA: usize = 256 * 1024;
}

/// What a cluster can do for its users.
#[async_trait]
pub trait ClusterService: Send + Sync + 'static {
    /// Who this peer is.
    async fn id(&self) -> ServiceResult<Id>;
    /// Who the members are; one that does not answer comes last, with an error.
    async fn peers(&self) -> ServiceResult<Vec<Id>>;
    /// Makes a connected peer a member.
    async fn add_peer(&self, peer: PeerId) -> ServiceResult<Id>;
    /// Moves a member's pins away and removes it.
    async fn remove_peer(&self, peer: PeerId) -> ServiceResult<()>;

    /// What a path (`/ipfs/<cid>/…`, `/ipns/…`, `/ipld/…`) leads to.
    async fn resolve(&self, path: &str) -> ServiceResult<Cid>;
    /// Pins; options of 0 copies get the default.
    async fn pin(&self, cid: Cid, options: PinOptions) -> ServiceResult<Committed<Pin>>;
    /// Pins what a path (`/ipfs/<cid>/…`, `/ipns/…`, `/ipld/…`) leads to.
    async fn pin_path(&self, path: &str, options: PinOptions) -> ServiceResult<Committed<Pin>>;
    /// Unpins; returns the pin as it was.
    async fn unpin(&self, cid: Cid) -> ServiceResult<Committed<Pin>>;
    /// Unpins what a path leads to.
    async fn unpin_path(&self, path: &str) -> ServiceResult<Committed<Pin>>;

    /// The pinset, or a part of it, in an order that never changes.
    fn allocations(&self, filter: PinTypeFilter, window: Window) -> Listing<Pin>;
    /// Some of the pinset, found in indexes: what it costs depends on what is found, and not on what there is. By name if
    /// only that is searched for, else in the order of [`ClusterService::allocations`].
    fn search(&self, search: Search, filter: PinTypeFilter, window: Window) -> Listing<Pin>;
    /// One pin.
    async fn allocation(&self, cid: Cid) -> ServiceResult<Pin>;
    /// The content of a pin as a CAR archive, in the order of [`export`](crate::unixfs::export), from the node of this peer,
    /// which fetches what it does not hold. An error after the first piece means that the archive is not whole.
    async fn car(&self, cid: Cid) -> ServiceResult<Listing<Bytes>>;

    /// How pins are doing, in the order of [`ClusterService::allocations`]; with a filter, only the peers where they are
    /// doing so.
    fn statuses(&self, filter: StatusFilter, reach: Reach, window: Window) -> Listing<GlobalPinInfo>;
    /// How one pin is doing; `unpinned` everywhere when it is not in the pinset.
    async fn status(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo>;
    /// Tries again at once what failed; lists what is tried.
    fn recover_all(&self, reach: Reach) -> Listing<GlobalPinInfo>;
    /// Tries one pin again at once.
    async fn recover(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo>;

    /// Imports content and pins it. `events` ends when the upload is whole; an error in it aborts the import, and
    /// then nothing is pinned. Problems with `params` are reported before anything is streamed.
    async fn add(
        &self,
        params: AddParams,
        events: mpsc::Receiver<ServiceResult<AddEvent>>,
    ) -> ServiceResult<Listing<AddedOutput>>;

    /// Names of the metrics known here.
    async fn metric_names(&self) -> ServiceResult<Vec<String>>;
    /// Valid, unexpired metrics of a name: the newest of each peer, sorted by peer.
    async fn metrics(&self, name: &str) -> ServiceResult<Vec<Metric>>;
    /// Metrics that were not renewed, newest first; before them, one named `quorum` while there is none.
    async fn alerts(&self) -> ServiceResult<Vec<Alert>>;
    /// Who is connected to whom.
    async fn connect_graph(&self) -> ServiceResult<ConnectGraph>;
    /// What went between this peer and others, by protocol; none if nobody counts. Costs nothing.
    fn bandwidth(&self) -> Option<BTreeMap<String, Bandwidth>> {
        None
    }
    /// How full the nodes of all peers are together; of those that say so.
    async fn repo_stat(&self) -> ServiceResult<RepoStat>;
    /// Collects garbage, one peer after the other.
    async fn collect_garbage(&self, reach: Reach) -> ServiceResult<GlobalRepoGc>;

    /// What lost when writes made apart were merged, newest first, from before a place: at most `limit`.
    fn events(&self, before: Option<EventPlace>, limit: usize) -> Listing<Event>;
    /// Position and digest.
    async fn state(&self) -> ServiceResult<StateReport>;
    /// Whether a quorum is there, as far as this peer can tell; costs nothing.
    fn has_quorum(&self) -> bool;
    /// Index of the last entry applied here; costs nothing.
    fn applied_index(&self) -> u64;
    /// Why this peer cannot follow its cluster, if somebody must come; costs nothing.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Returns when everything acknowledged before is visible here.
    async fn read_barrier(&self) -> ServiceResult<()>;
}
