//! What the tests do to a cluster, and what they were told.

use anyhow::{Result, bail};
use cluster_core::testing::linear::Told;
pub(crate) use cluster_tests::content::inline_cid;
use cluster_tests::process::ProcessCluster;
use cluster_types::{Cid, Pin};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};

/// The text of every "no such pin".
const NOT_PINNED: &str = "pin is not part of the pinset";

/// Where a write stands, by the header of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// In the log.
    Log,
    /// On the disk of the peer that answered, to be merged later.
    Eventual,
}

/// What a client heard of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// What became of the write as far as is known.
    pub(crate) told: Told,
    /// Where it stands; every acknowledgement says so.
    pub(crate) commit: Option<Commit>,
    /// Whether the peer answered at all.
    pub(crate) answered: bool,
}

/// An answer of a peer.
struct Answer {
    status: StatusCode,
    commit: Option<Commit>,
    body: String,
}

/// Pins under a name; says what became of it as far as is known.
pub(crate) async fn pin(cluster: &ProcessCluster, peer: usize, cid: &Cid, name: &str) -> Told {
    pin_with(cluster, peer, cid, &format!("name={name}&replication-min=-1&replication-max=-1")).await.told
}

/// Pins with the options of a query.
pub(crate) async fn pin_with(cluster: &ProcessCluster, peer: usize, cid: &Cid, query: &str) -> Heard {
    let answer = send(cluster, peer, Method::POST, &format!("/pins/{cid}?{query}")).await;
    heard(answer, |answer| if answer.status.is_success() { Told::Pinned } else { Told::Unknown })
}

/// Unpins.
pub(crate) async fn unpin(cluster: &ProcessCluster, peer: usize, cid: &Cid) -> Told {
    unpin_at(cluster, peer, cid).await.told
}

/// Unpins, and says where that stands.
pub(crate) async fn unpin_at(cluster: &ProcessCluster, peer: usize, cid: &Cid) -> Heard {
    let answer = send(cluster, peer, Method::DELETE, &format!("/pins/{cid}")).await;
    heard(answer, |answer| match answer.status {
        status if status.is_success() => serial(&answer.body).map_or(Told::Unknown, Told::Unpinned),
        StatusCode::NOT_FOUND if answer.body.contains(NOT_PINNED) => Told::Nothing,
        _ => Told::Unknown,
    })
}

/// What an answer to a write means; `otherwise` says it of what is no refusal.
fn heard(answer: reqwest::Result<Answer>, otherwise: impl FnOnce(&Answer) -> Told) -> Heard {
    match answer {
        Ok(Answer { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => {
            Heard { told: Told::Refused, commit: None, answered: true }
        }
        Ok(answer) => Heard { told: otherwise(&answer), commit: answer.commit, answered: true },
        // A call that never reached the peer had no effect.
        Err(error) if error.is_connect() => Heard { told: Told::Refused, commit: None, answered: false },
        Err(_) => Heard { told: Told::Unknown, commit: None, answered: false },
    }
}

/// Reads one pin; linearizable unless `stale`.
pub(crate) async fn read(cluster: &ProcessCluster, peer: usize, cid: &Cid, stale: bool) -> Told {
    let query = if stale { "" } else { "?consistency=linearizable" };
    match send(cluster, peer, Method::GET, &format!("/allocations/{cid}{query}")).await {
        Ok(Answer { status: StatusCode::OK, body, .. }) => serial(&body).map_or(Told::Unknown, Told::Found),
        Ok(Answer { status: StatusCode::NOT_FOUND, body, .. }) if body.contains(NOT_PINNED) => Told::Nothing,
        Ok(_) | Err(_) => Told::Unknown,
    }
}

async fn send(cluster: &ProcessCluster, peer: usize, method: Method, path: &str) -> reqwest::Result<Answer> {
    let answer = cluster.http(peer).request(method, cluster.url(peer, path)).send().await?;
    let (status, commit) = (answer.status(), commit(answer.headers().get("x-cluster-commit")));
    Ok(Answer { status, commit, body: answer.text().await? })
}

/// Reads `eventual` or `<term>-<index>`.
fn commit(header: Option<&HeaderValue>) -> Option<Commit> {
    let text = header?.to_str().ok()?;
    if text == "eventual" {
        return Some(Commit::Eventual);
    }
    let (term, index) = text.split_once('-')?;
    (term.parse::<u64>().is_ok() && index.parse::<u64>().is_ok()).then_some(Commit::Log)
}

/// The serial number in a pin's name.
fn serial(body: &str) -> Option<u64> {
    serde_json::from_str::<Pin>(body).ok()?.options.name.parse().ok()
}

/// Makes sure that something came of what a test did.
pub(crate) fn at_least(what: &str, seen: usize, wanted: usize) -> Result<()> {
    if seen < wanted {
        bail!("only {seen} {what}, at least {wanted} are needed for the test to say anything");
    }
    Ok(())
}
