//! `repo`: what is kept, and how much of it.

use cluster_core::ports::{BlockError, IpfsNode};
use cluster_core::unixfs::verify;
use futures::StreamExt;
use serde_json::json;

use super::Rpc;
use super::about::REPO_VERSION;
use super::call::Call;
use super::reply::{self, Answer, Failure};
use crate::embedded::gc;

/// Multihashes read from the store at a time.
const PAGE: usize = 4096;

impl Rpc {
    /// `repo gc`.
    pub(super) async fn repo_gc(&self, call: Call) -> Answer {
        let silent = call.flag(&["silent"])?.unwrap_or(false);
        let removed = self.node.collect_garbage().await?;
        let told = removed.into_iter().filter(move |_| !silent).map(|gone| {
            Ok(match gone.key {
                Some(cid) => json!({ "Key": { "/": cid.to_string() } }),
                None => json!({ "Key": null, "Error": gone.error }),
            })
        });
        reply::row(call.trailers, futures::stream::iter(told).boxed()).await
    }

    /// `repo stat`.
    pub(super) async fn repo_stat(&self, call: Call) -> Answer {
        let stat = self.node.repo_stat().await?;
        if call.flag(&["size-only", "s"])?.unwrap_or(false) {
            return Ok(reply::one(&json!({
                "RepoSize": stat.repo_size, "StorageMax": stat.storage_max,
                "NumObjects": 0, "RepoPath": "", "Version": "",
            })));
        }
        Ok(reply::one(&json!({
            "RepoSize": stat.repo_size,
            "StorageMax": stat.storage_max,
            "NumObjects": gc::count(&self.node.kept).await?,
            "RepoPath": self.repository.display().to_string(),
            "Version": format!("fs-repo@{REPO_VERSION}"),
        })))
    }

    /// `repo verify`: whether every block is what its name says.
    pub(super) async fn repo_verify(&self) -> Answer {
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            let store = rpc.node.kept.store();
            let (mut after, mut done, mut corrupt) = (None, 0_u64, 0_u64);
            loop {
                let page = store.list(after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                for multihash in &page {
                    let sound = match store.get(multihash).await {
                        Ok(Some(data)) => gc::raw_name(multihash).is_some_and(|cid| verify(&cid, &data).is_ok()),
                        // Gone in the meantime.
                        Ok(None) => true,
                        Err(BlockError::Damaged { .. }) => false,
                        Err(error) => Err(error)?,
                    };
                    if !sound {
                        corrupt += 1;
                        let name = gc::raw_name(multihash).map(|cid| cid.to_string()).unwrap_or_default();
                        yield json!({ "Msg": format!("block {name} was corrupt"), "Progress": 0 });
                    }
                    done += 1;
                    yield json!({ "Msg": "", "Progress": done });
                }
            }
            if corrupt > 0 {
                Err(Failure::new(format!("verify complete, {corrupt} blocks corrupt")))?;
            }
            yield json!({ "Msg": "verify complete, all blocks validated.", "Progress": 0 });
        };
        reply::row(true, row.boxed()).await
    }

    /// Makes room before something is added, and refuses when there is none.
    pub(super) async fn admit(&self) -> Result<(), Failure> {
        Ok(self.node.make_room().await?)
    }
}
