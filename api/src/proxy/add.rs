//! `add`: content goes to the cluster. The upload is read as that of the REST API.

use cluster_types::{AddLayout, AddParams, AddedOutput, Cid};
use http::header::{CONTENT_TYPE, HeaderMap};
use serde::Serialize;

use super::Proxy;
use super::command::flag;
use super::kubo::{Answer, Refusal};
use crate::options;
use crate::query::Query;
use crate::upload::{self, Unread};

/// The hash function of CIDs of version 0.
const PLAIN_HASH: &str = "sha2-256";

/// One thing that was added, in Kubo's shape.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Added {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Cid>,
    #[serde(skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl From<AddedOutput> for Added {
    fn from(output: AddedOutput) -> Self {
        Self {
            name: output.name,
            hash: output.cid,
            bytes: output.bytes,
            size: (output.size > 0).then(|| output.size.to_string()),
        }
    }
}

impl Proxy {
    /// `add`.
    pub(super) async fn add(&self, query: &Query, headers: &HeaderMap, body: &mut Unread) -> Answer {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = upload::boundary(content_type)
            .map_err(|failure| Refusal::new(format!("error reading request: {}", failure.message)))?;
        if flag(query, "only-hash") == Some(true) {
            return Err(Refusal::new("only-hash is not supported when adding to cluster"));
        }
        let params = self.add_params(query)?;
        upload::check(&params)?;
        let limits = upload::Limits { idle: self.patience.idle, most: u64::MAX };
        let uploading = upload::start(&self.writes, &self.service, limits, params, &boundary, body)?;
        Ok(uploading.answer(Added::from).await?)
    }

    /// The parameters of the REST API, and those of Kubo that mean the same.
    fn add_params(&self, query: &Query) -> Result<AddParams, Refusal> {
        let read = options::add_params(query, self.clock.now());
        let mut params = read.map_err(|failure| Refusal::new(format!("error parsing options:{}", failure.message)))?;
        if flag(query, "trickle") == Some(true) {
            params.layout = AddLayout::Trickle;
        }
        if flag(query, "pin") == Some(false) {
            params.no_pin = true;
        }
        if let Some(name) = query.value("pin-name") {
            name.clone_into(&mut params.options.name);
        }
        // Kubo's rule: other hash functions have CIDs of version 1 if no version is asked for.
        if params.hash != PLAIN_HASH && query.value("cid-version").is_none() {
            params.cid_version = 1;
            params.raw_leaves = query.bool("raw-leaves", true)?;
        }
        Ok(params)
    }
}
