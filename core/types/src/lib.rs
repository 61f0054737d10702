//! What crosses a boundary: every value that two packages speak of or a user sees.
//!
//! No runtime, no I/O, no logic beyond parsing, checking and formatting. JSON shapes are those of the REST API of
//! ipfs-cluster v1.1.6, so a change here is a change for users' programs.

mod add;
mod address;
mod bandwidth;
mod cid;
mod commit;
mod error;
mod event;
mod identity;
mod metric;
mod null;
mod page;
mod peer;
mod pin;
mod pinning;
mod replication;
mod repo;
mod state;
mod status;
mod time;

pub use add::{AddFormat, AddLayout, AddParams, AddedOutput, DirectorySize, UnixFsProfile};
pub use address::{AddressError, parse_address};
pub use bandwidth::Bandwidth;
pub use cid::{Cid, CidError, Codec};
pub use commit::{Commit, CommitError};
pub use error::{BoxError, ErrorChain, ErrorClass, WireError};
pub use event::{Event, EventAuthor, EventParty, EventPlace, EventPlaceError};
pub use identity::{CatchUp, ConnectGraph, Id, IpfsId};
pub use metric::{Alert, Metric, PingValue};
pub use multiaddr::{Multiaddr, Protocol};
pub use page::{Page, PageLimit};
pub use peer::{PeerId, PeerIdError, parse_peer_id};
pub use pin::{Pin, PinDepth, PinMode, PinOptions, PinType, PinTypeFilter};
pub use pinning::{PinningRequest, RequestId, RequestIdError, RequestNumber};
pub use replication::{ReplicationError, ReplicationFactor};
pub use repo::{GcKey, GlobalRepoGc, RepoGc, RepoStat};
pub use state::{Role, StateReport};
pub use status::{GlobalPinInfo, PinInfo, PinInfoShort, StatusFilter, TrackerStatus};
pub use time::{GoDuration, TimeError, Timestamp};

/// The version of the programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version a peer tells clients (`GET /version`, `version` of an ID): that of the API it speaks, for clients that compare it,
/// and as semantic versioning's build metadata the one of the programs.
pub const API_VERSION: &str = concat!("1.1.6+ipfs-cluster-rs.", env!("CARGO_PKG_VERSION"));
