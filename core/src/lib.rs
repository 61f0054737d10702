//! The rules of the cluster: ports, consensus, allocation, tracking, services.
//!
//! **Architecture invariant:** nothing here opens a socket or a file; the world comes in through [`ports`].

pub mod add;
pub mod alloc;
pub mod broadcast;
pub mod catchup;
pub mod cluster;
pub mod consensus;
pub mod crdt;
pub mod follower;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod monitor;
pub mod ports;
pub mod rpc;
pub mod task;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tracker;
pub mod trust;
pub mod unixfs;
pub mod watch;
