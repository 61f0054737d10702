//! The configuration: `service.json`, the environment, and the files beside it.
//!
//! Two stages. The first is a `Document`: the file as JSON, the environment's overrides, and one table that names
//! every key with its kind, its default and what its absence means. The second is [`Config`]: checked types, made by
//! one function. A `service.json` of ipfs-cluster v1.1.6 loads unchanged; a key that nobody knows is named in one
//! warning; a value that cannot be used stops the start with its key, its value and where it was written.
//!
//! **Invariant:** nothing else in the project reads the configuration file or a `CLUSTER_*` variable.
//! **Invariant:** secrets never reach an error text or a Debug output.

mod access;
#[cfg(test)]
mod access_tests;
mod addresses;
mod datastores;
mod document;
#[cfg(test)]
mod drop_in_tests;
mod environment;
mod error;
mod folder;
#[cfg(test)]
mod follower_tests;
mod identity;
#[cfg(test)]
mod init_tests;
mod load;
#[cfg(test)]
mod reference_tests;
mod sections;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod validate;
mod value;
mod write;

pub use access::AccessConfig;
pub use environment::{Environment, NotText, ProcessEnvironment};
pub use error::ConfigError;
pub use folder::{ConfigFolder, ExecutionLock, PEERSTORE, random_free_port};
pub use identity::{ensure_identity, ensure_legacy_identity, load_identity};
#[cfg(any(test, fuzzing))]
pub(crate) use load::load_file;
pub use load::{
    FollowerApi, Loaded, follower_api, kubo_of_environment, load, load_follower, load_stopped, source_of,
    without_password,
};
pub use sections::{
    AllocatorConfig, BasicAuth, ClusterConfig, Config, ConnectionLimits, ConsensusConfig, ConsensusMode,
    ConsensusTimings, CorsConfig, DiskInformerConfig, DiskMetric, EmbeddedNodeConfig, HttpApiConfig, HttpHostConfig,
    HttpLimits, HttpTimeouts, IdentityHalf, IdentitySource, InformersConfig, IpfsConfig, KuboConfig, MonitorConfig,
    ProxyConfig, PubsubConfig, QueueInformerConfig, ResourceLimits, TagsInformerConfig, TelemetryConfig, TrackerConfig,
    TrustedPeers, hostname,
};
pub use source::fetch_source;
pub use value::{ByteSize, ByteSizeError, ClusterSecret, Secret, SecretError};
pub use write::{ConsensusName, DatastoreName, NewConfig, NodeKind, write_source};
