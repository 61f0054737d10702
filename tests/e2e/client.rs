//! What the tests do to a cluster, and what they were told.

use anyhow::{Result, bail};
use cluster_core::testing::linear::Told;
pub(crate) use cluster_tests::content::inline_cid;
use cluster_tests::process::ProcessCluster;
use cluster_types::{Cid, Pin};
use reqwest::{Method, StatusCode};

/// The text of every "no such pin".
const NOT_PINNED: &str = "pin is not part of the pinset";

/// Pins under a name; says what became of it as far as is known.
pub(crate) async fn pin(cluster: &ProcessCluster, peer: usize, cid: &Cid, name: &str) -> Told {
    let url =
        format!("{}?name={name}&replication-min=-1&replication-max=-1", cluster.url(peer, &format!("/pins/{cid}")));
    match send(cluster, Method::POST, url).await {
        Ok((StatusCode::OK, _)) => Told::Pinned,
        Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Told::Refused,
        Ok(_) => Told::Unknown,
        Err(error) => not_answered(&error),
    }
}

/// A call that never reached the peer had no effect.
fn not_answered(error: &reqwest::Error) -> Told {
    if error.is_connect() { Told::Refused } else { Told::Unknown }
}

/// Unpins.
pub(crate) async fn unpin(cluster: &ProcessCluster, peer: usize, cid: &Cid) -> Told {
    match send(cluster, Method::DELETE, cluster.url(peer, &format!("/pins/{cid}"))).await {
        Ok((StatusCode::OK, body)) => serial(&body).map_or(Told::Unknown, Told::Unpinned),
        Ok((StatusCode::NOT_FOUND, body)) if body.contains(NOT_PINNED) => Told::Nothing,
        Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Told::Refused,
        Ok(_) => Told::Unknown,
        Err(error) => not_answered(&error),
    }
}

/// Reads one pin; linearizable unless `stale`.
pub(crate) async fn read(cluster: &ProcessCluster, peer: usize, cid: &Cid, stale: bool) -> Told {
    let query = if stale { "" } else { "?consistency=linearizable" };
    match send(cluster, Method::GET, cluster.url(peer, &format!("/allocations/{cid}{query}"))).await {
        Ok((StatusCode::OK, body)) => serial(&body).map_or(Told::Unknown, Told::Found),
        Ok((StatusCode::NOT_FOUND, body)) if body.contains(NOT_PINNED) => Told::Nothing,
        Ok(_) | Err(_) => Told::Unknown,
    }
}

async fn send(cluster: &ProcessCluster, method: Method, url: String) -> reqwest::Result<(StatusCode, String)> {
    let answer = cluster.http.request(method, url).send().await?;
    let status = answer.status();
    Ok((status, answer.text().await?))
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
