//! `repo/stat` and `repo/gc`: of all nodes of the cluster.

use std::sync::Arc;

use cluster_core::cluster::Reach;
use cluster_types::{Cid, ErrorClass, GcKey, WireError};
use serde::Serialize;

use super::Proxy;
use super::command::flag;
use super::kubo::{self, Answer};
use crate::query::Query;

/// A CID as a link.
#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: Cid,
}

/// A block that was removed, or why one was not.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Removed {
    key: Option<Link>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl Proxy {
    /// `repo/stat`.
    pub(super) async fn repo_stat(&self) -> Answer {
        kubo::json(&self.service.repo_stat().await?)
    }

    /// `repo/gc`.
    pub(super) async fn repo_gc(&self, query: &Query) -> Answer {
        let streams_errors = flag(query, "stream-errors") == Some(true);
        let service = Arc::clone(&self.service);
        let collected =
            self.writes.run(&service, |service| async move { service.collect_garbage(Reach::Cluster).await }).await?;
        let keys = collected.peer_map.into_values().flat_map(|peer| peer.keys);
        let lines = keys.map(move |GcKey { key, error }| {
            if !error.is_empty() && !streams_errors {
                return Err(WireError::new(ErrorClass::Unavailable, format!("{error};")));
            }
            let key = key.filter(|_| error.is_empty()).map(|cid| Link { cid });
            kubo::line(&Removed { key, error })
        });
        Ok(kubo::stream(futures::stream::iter(lines)))
    }
}
