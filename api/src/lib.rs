//! The HTTP surface of a peer: what programs and people reach a cluster through.
//!
//! Thin on purpose: a request is read, one method of `ClusterService` is called, its answer is written. No rule of
//! the cluster is decided here. Routes, parameters, status codes and JSON are those of ipfs-cluster v1.1.6.
//!
//! **Invariant:** a request that is answered with 4xx had no effect: everything is checked before anything is called.
//! **Invariant:** memory per connection is bounded: heads, bodies, uploads and listings pass through small buffers.

mod access;
mod config;
mod connection;
mod credentials;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod json;
mod late;
mod listener;
mod options;
mod pinsvc;
mod places;
mod proxy;
mod query;
mod reply;
mod rest;
mod scrape;
mod server;
mod stream;
mod telemetry;
mod tls;
mod upload;
mod writes;

pub use access::{ACCESS_LOG, PINNING_ACCESS_LOG, PROXY_ACCESS_LOG};
pub use config::{CorsRules, RestConfig, TlsFiles};
pub use credentials::{Credentials, Scope, Scopes, TokenFiles, TokenSecret, UnknownScope};
pub use error::ApiError;
pub use listener::{ByteStream, ByteStreams, Carried, is_listen_address};
pub use pinsvc::PinningServer;
pub use proxy::{BoundProxy, ProxyConfig, ProxyServer};
pub use rest::auth::{hash_password, short_token};
pub use scrape::{BoundMetrics, MetricsServer};
pub use server::{ApiServer, BoundApi};
pub use telemetry::{ApiTelemetry, ProxyTelemetry};
