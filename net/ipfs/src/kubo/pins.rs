//! Pin, unpin, and what is pinned.
//!
//! A pin counts as made only when Kubo named it in a complete answer; a listing without its end is an error.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use cluster_core::ports::{IpfsError, PinProgress, PinRequest, ProgressSink};
use cluster_types::{Cid, Multiaddr, PinDepth};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;

use super::client::{Call, Client, Failure};
use super::{KuboConfig, repo};

/// How many origins of a pin are connected to.
const MAX_ORIGINS: usize = 10;
/// What Kubo says when it is asked to unpin what is not pinned.
const NOT_PINNED: &str = "not pinned or pinned indirectly";
/// How Kubo ends its answer when it is asked how something is pinned that is not.
const IS_NOT_PINNED: &str = "not pinned";

#[derive(Deserialize)]
struct PinAddLine {
    #[serde(rename = "Pins", default)]
    pins: Option<Vec<Cid>>,
    #[serde(rename = "Progress", default)]
    blocks: u64,
    #[serde(rename = "Bytes", default)]
    bytes: u64,
}

#[derive(Deserialize)]
struct PinsAnswer {
    #[serde(rename = "Pins")]
    pins: Vec<Cid>,
}

#[derive(Deserialize)]
struct PinLsLine {
    #[serde(rename = "Cid")]
    cid: Cid,
    #[serde(rename = "Type")]
    kind: String,
}

/// Pins, with whatever helps.
pub(super) async fn pin(
    client: &Client,
    config: &KuboConfig,
    request: PinRequest,
    progress: ProgressSink,
) -> Result<(), Failure> {
    if pinned(client, config, request.cid).await?.is_some_and(|kept| covers(kept, request.depth)) {
        return Ok(());
    }
    let mut patience = Patience { limit: config.pin_timeout, grown_at: Instant::now(), blocks: 0 };
    let fetch = async {
        if let Some(from) = request.update_from.filter(|_| request.depth == PinDepth::RECURSIVE)
            && update(client, config, from, request.cid).await?
        {
            return Ok(());
        }
        patience.grown_at = Instant::now();
        add(client, &request, &mut patience, &progress).await
    };
    // The connections are tried beside the fetch and end with it.
    tokio::select! {
        result = fetch => result,
        never = connect_origins(client, config, &request.origins) => match never {},
    }
}

/// Whether what is kept `kept` deep is kept `wanted` deep.
fn covers(kept: PinDepth, wanted: PinDepth) -> bool {
    kept == PinDepth::RECURSIVE || kept == wanted
}

async fn connect_origins(client: &Client, config: &KuboConfig, origins: &[Multiaddr]) -> Infallible {
    let few = origins.iter().take(MAX_ORIGINS);
    futures::stream::iter(few)
        .for_each_concurrent(MAX_ORIGINS, |origin| async move {
            let result = repo::connect(client, config, std::slice::from_ref(origin)).await;
            if let Err(error) = result.map_err(IpfsError::from) {
                tracing::debug!(%origin, %error, "origin of a pin is out of reach");
            }
        })
        .await;
    std::future::pending().await
}

/// Pins through what an older pin has in common; false when that did not work and the plain way has to be taken.
///
/// `pin/update` tells no progress, so it cannot be told from one that hangs. It gets the time that a fetch may go
/// without progress; what it fetched until then is there for the plain way.
async fn update(client: &Client, config: &KuboConfig, from: Cid, to: Cid) -> Result<bool, Failure> {
    if pinned_as(client, config, from, PinDepth::RECURSIVE).await?.is_none() {
        return Ok(false);
    }
    let call = Call::new("pin/update").with("arg", from).with("arg", to).with("unpin", false);
    match client.ask::<PinsAnswer>(&call, super::answer::MAX_LINE, config.pin_timeout).await {
        Ok(answer) => Ok(names(&answer.pins, to)),
        Err(failure) => {
            let error = IpfsError::from(failure);
            tracing::debug!(cid = %to, %from, %error, "pin update failed, fetching in full");
            Ok(false)
        }
    }
}

async fn add(
    client: &Client,
    request: &PinRequest,
    patience: &mut Patience,
    progress: &ProgressSink,
) -> Result<(), Failure> {
    let call = Call::new("pin/add").with("arg", request.cid);
    let call = match request.depth {
        PinDepth::DIRECT => call.with("recursive", false),
        PinDepth::RECURSIVE => call.with("recursive", true),
        PinDepth(levels) => call.with("max-depth", levels).with("recursive", true),
    };
    let call = call.with("progress", true);

    let mut lines = patience.wait(client.post(&call, None)).await?.lines();
    let mut seen = PinProgress::default();
    let mut confirmed = false;
    while let Some(line) = patience.wait(lines.next::<PinAddLine>()).await? {
        if line.blocks > seen.blocks || line.bytes > seen.bytes {
            seen = PinProgress { blocks: line.blocks.max(seen.blocks), bytes: line.bytes.max(seen.bytes) };
            progress.send_replace(seen);
            patience.grew(seen.blocks);
        }
        confirmed |= line.pins.is_some_and(|pins| names(&pins, request.cid));
    }
    if confirmed { Ok(()) } else { Err(lines.bad(format!("it does not say that {} is pinned", request.cid)).into()) }
}

/// Whether `cid` is among `pins`, in whatever version and base Kubo writes it.
fn names(pins: &[Cid], cid: Cid) -> bool {
    pins.iter().any(|pin| pin.hash() == cid.hash())
}

/// How long a fetch may go on: for ever, as long as it grows.
struct Patience {
    limit: Duration,
    grown_at: Instant,
    blocks: u64,
}

impl Patience {
    fn grew(&mut self, blocks: u64) {
        self.grown_at = Instant::now();
        self.blocks = blocks;
    }

    async fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout_at(self.grown_at + self.limit, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(IpfsError::Stalled { seconds: self.limit.as_secs(), blocks: self.blocks }.into()),
        }
    }
}

/// Unpins; what is not pinned is unpinned already.
pub(super) async fn unpin(client: &Client, config: &KuboConfig, cid: Cid) -> Result<(), Failure> {
    if config.unpin_disable {
        return Err(IpfsError::UnpinDisabled.into());
    }
    let call = Call::new("pin/rm").with("arg", cid);
    match client.ask::<PinsAnswer>(&call, super::answer::MAX_LINE, config.unpin_timeout).await {
        Ok(answer) if names(&answer.pins, cid) => Ok(()),
        Ok(_) => {
            let reason = format!("it does not say that {cid} is unpinned");
            Err(IpfsError::BadAnswer { operation: call.operation, reason }.into())
        }
        Err(Failure::Said { message, .. }) if message == NOT_PINNED => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// How something is pinned by itself. Two questions: the one for all kinds at once would search every pin's DAG.
pub(super) async fn pinned(client: &Client, config: &KuboConfig, cid: Cid) -> Result<Option<PinDepth>, Failure> {
    match pinned_as(client, config, cid, PinDepth::RECURSIVE).await? {
        Some(depth) => Ok(Some(depth)),
        None => pinned_as(client, config, cid, PinDepth::DIRECT).await,
    }
}

async fn pinned_as(
    client: &Client,
    config: &KuboConfig,
    cid: Cid,
    depth: PinDepth,
) -> Result<Option<PinDepth>, Failure> {
    let kind = kind_of(depth);
    let call = Call::new("pin/ls").with("stream", true).with("arg", cid).with("type", kind);
    let asked = client.within(call.operation, config.request_timeout, async {
        let mut lines = client.post(&call, None).await?.lines();
        let first = lines.next::<PinLsLine>().await?;
        let bad = |reason: &str| Failure::from(lines.bad(reason.to_owned()));
        let line = first.ok_or_else(|| bad("it is empty"))?;
        if line.kind != kind || line.cid.hash() != cid.hash() {
            return Err(bad("it speaks of another pin"));
        }
        Ok(depth)
    });
    match asked.await {
        Ok(depth) => Ok(Some(depth)),
        Err(Failure::Said { message, .. }) if message.ends_with(IS_NOT_PINNED) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn kind_of(depth: PinDepth) -> &'static str {
    if depth == PinDepth::DIRECT { "direct" } else { "recursive" }
}

/// Every recursive pin, then every direct one. `silence` bounds the wait for each line, not the whole: a listing of a
/// hundred million pins takes its time, and a slow reader is not the node's fault.
pub(super) fn list(
    client: Client,
    silence: Duration,
) -> impl Stream<Item = Result<(Cid, PinDepth), IpfsError>> + Send + 'static {
    async_stream::try_stream! {
        for depth in [PinDepth::RECURSIVE, PinDepth::DIRECT] {
            let kind = kind_of(depth);
            let call = Call::new("pin/ls").with("stream", true).with("type", kind);
            let answer = client.within(call.operation, silence, client.post(&call, None)).await;
            let mut lines = answer.map_err(IpfsError::from)?.lines();
            loop {
                let line = client.within(call.operation, silence, lines.next::<PinLsLine>()).await;
                let Some(line) = line.map_err(IpfsError::from)? else { break };
                if line.kind != kind {
                    Err(lines.bad(format!("a pin among the {kind} ones is of another kind")))?;
                }
                yield (line.cid, depth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recursive_pin_covers_every_depth() {
        assert!(covers(PinDepth::RECURSIVE, PinDepth::DIRECT));
        assert!(covers(PinDepth::RECURSIVE, PinDepth(3)));
        assert!(covers(PinDepth::DIRECT, PinDepth::DIRECT));
        assert!(!covers(PinDepth::DIRECT, PinDepth::RECURSIVE));
        assert!(!covers(PinDepth::DIRECT, PinDepth(1)));
    }
}
