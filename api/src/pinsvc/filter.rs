//! What a listing shows, as the query says it.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::cluster::RequestsOf;
use cluster_types::{Cid, PinningRequest, Timestamp};

use super::models::{self, MAX_NAME};
use super::status::Status;
use crate::error::Failure;
use crate::query::Query;

/// The most CIDs of a query.
const MAX_CIDS: usize = 10;
/// How many requests are shown where nothing is said, and at most.
const LIMITS: (usize, usize) = (10, 1000);

/// How names are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Match {
    #[default]
    Exact,
    AnyCase,
    Part,
    PartInAnyCase,
}

/// Which requests a listing shows; they must fit all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) cids: Vec<Cid>,
    name: Option<String>,
    how: Match,
    pub(super) statuses: BTreeSet<Status>,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
    meta: BTreeMap<String, String>,
    pub(super) limit: usize,
}

impl Filter {
    /// Reads a query.
    pub(super) fn of(query: &Query) -> Result<Self, Failure> {
        let refuse = |name: &str, why: &str| Failure::bad_request(format!("{name}: {why}"));
        let words = |name: &str| query.value(name).map(|text| text.split(',').collect::<Vec<_>>());
        let mut cids = Vec::new();
        for word in words("cid").unwrap_or_default() {
            let cid = word.parse().map_err(|error| refuse("cid", &format!("{word:?} is no CID: {error}")))?;
            if !cids.contains(&cid) {
                cids.push(cid);
            }
        }
        if cids.len() > MAX_CIDS {
            return Err(refuse("cid", "at most 10 may be asked for"));
        }
        let name = query.value("name").map(str::to_owned);
        if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
            return Err(refuse("name", "it is over 255 chars"));
        }
        let how = match query.value("match") {
            None | Some("exact") => Match::Exact,
            Some("iexact") => Match::AnyCase,
            Some("partial") => Match::Part,
            Some("ipartial") => Match::PartInAnyCase,
            Some(_) => return Err(refuse("match", "it is one of exact, iexact, partial, ipartial")),
        };
        // The specification's default; those who want to see all name all four.
        let words = words("status").unwrap_or_else(|| vec!["pinned"]);
        let statuses: Result<_, ()> = words.into_iter().map(str::parse::<Status>).collect();
        let time = |name: &str| {
            let time = query.value(name).map(str::parse::<Timestamp>).transpose();
            time.map_err(|error| refuse(name, &format!("it is no time like 2020-07-27T17:32:28Z: {error}")))
        };
        let limit = query.value("limit").map_or(Ok(LIMITS.0), str::parse);
        let limit = limit.ok().filter(|limit| (1..=LIMITS.1).contains(limit));
        let meta = query.value("meta").map(serde_json::from_str).transpose();
        let meta = meta.map_err(|error| refuse("meta", &format!("it is no JSON object: {error}")))?;
        Ok(Self {
            cids,
            name,
            how,
            statuses: statuses.map_err(|()| refuse("status", "it is some of queued, pinning, pinned, failed"))?,
            before: time("before")?,
            after: time("after")?,
            meta: models::texts(meta.as_ref())?,
            limit: limit.ok_or_else(|| refuse("limit", "it is a number from 1 to 1000"))?,
        })
    }

    /// The smallest part of a user's requests that has all of it.
    pub(super) fn requests_of(&self, user: &str) -> RequestsOf {
        let name = self.name.clone().filter(|_| self.how == Match::Exact);
        RequestsOf { user: user.to_owned(), name, before: self.before, after: self.after }
    }

    /// Whether a request fits what is asked of its name, time and metadata.
    pub(super) fn fits(&self, request: &PinningRequest) -> bool {
        let named = self.name.as_ref().is_none_or(|wanted| match self.how {
            Match::Exact => request.name == *wanted,
            Match::AnyCase => request.name.to_lowercase() == wanted.to_lowercase(),
            Match::Part => request.name.contains(wanted.as_str()),
            Match::PartInAnyCase => request.name.to_lowercase().contains(&wanted.to_lowercase()),
        });
        named
            && self.before.is_none_or(|before| request.created < before)
            && self.after.is_none_or(|after| request.created > after)
            && self.meta.iter().all(|(key, text)| request.meta.get(key) == Some(text))
    }
}
