//! The questions that the demo asks a peer's REST API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_types::{Cid, GlobalPinInfo, Id, Pin, StateReport};
use serde_json::Value;

use super::http::{Answer, ask};

/// For questions that a healthy peer answers from memory.
const QUICK: Duration = Duration::from_secs(10);
/// For listings that ask every peer; a dead one is waited for at most 15 seconds.
const LISTING: Duration = Duration::from_secs(40);
/// For one write: it may wait for an election.
const WRITE: Duration = Duration::from_secs(20);

/// Who the peer is.
pub(super) async fn id(peer: SocketAddr) -> anyhow::Result<Id> {
    one(ask(peer, "GET", "/id", QUICK).await?)
}

/// Where the peer is in the shared log.
pub(super) async fn state(peer: SocketAddr) -> anyhow::Result<StateReport> {
    one(ask(peer, "GET", "/state", QUICK).await?)
}

/// The members, as the peer knows them.
pub(super) async fn members(peer: SocketAddr) -> anyhow::Result<Vec<Id>> {
    many(ask(peer, "GET", "/peers", LISTING).await?)
}

/// The names of the peers whose metric of this name is valid.
pub(super) async fn metric_count(peer: SocketAddr, name: &str) -> anyhow::Result<usize> {
    let path = format!("/monitor/metrics/{name}");
    let metrics: Vec<Value> = one(ask(peer, "GET", &path, QUICK).await?)?;
    Ok(metrics.len())
}

/// The pinset, as the peer has it.
pub(super) async fn allocations(peer: SocketAddr) -> anyhow::Result<Vec<Pin>> {
    many(ask(peer, "GET", "/allocations", LISTING).await?)
}

/// How one pin is doing on every peer.
pub(super) async fn status(peer: SocketAddr, cid: &Cid) -> anyhow::Result<GlobalPinInfo> {
    one(ask(peer, "GET", &format!("/pins/{cid}"), LISTING).await?)
}

/// How every pin is doing on every peer.
pub(super) async fn statuses(peer: SocketAddr) -> anyhow::Result<Vec<GlobalPinInfo>> {
    many(ask(peer, "GET", "/pins", LISTING).await?)
}

/// Pins with two copies; returning without an error means that it is acknowledged.
pub(super) async fn pin(peer: SocketAddr, cid: &Cid, name: &str) -> anyhow::Result<()> {
    let path = format!("/pins/ipfs/{cid}?replication-min=2&replication-max=2&mode=recursive&name={name}");
    checked(ask(peer, "POST", &path, WRITE).await?).map(drop)
}

fn checked(answer: Answer) -> anyhow::Result<Answer> {
    if !(200..300).contains(&answer.status) {
        bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
    }
    Ok(answer)
}

fn one<T: serde::de::DeserializeOwned>(answer: Answer) -> anyhow::Result<T> {
    serde_json::from_slice(&checked(answer)?.body).context("the answer is not what it should be")
}

fn many<T: serde::de::DeserializeOwned>(answer: Answer) -> anyhow::Result<Vec<T>> {
    let answer = checked(answer)?;
    let items = serde_json::Deserializer::from_slice(&answer.body).into_iter::<T>();
    items.collect::<Result<_, _>>().context("the answer is not what it should be")
}
