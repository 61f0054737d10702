//! The REST API and the pinning service over libp2p, for clients that know a peer by its id.
//!
//! In raft mode the network of the cluster carries it, to everybody who knows the secret. In both modes a host of its own
//! does, to everybody, where `api.restapi` or `api.pinsvcapi` names one.

use std::convert::Infallible;

use cluster_api::{BoundApi, ByteStreams, Carried};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_net::{HttpHost, HttpStream, HttpStreams, Identity, Network};
use tokio::sync::mpsc;

use crate::config::{Config, ConsensusMode, HttpApiConfig};
use crate::peer::{PeerError, start};

/// Where a failure to start is placed.
const PART: &str = "the libp2p endpoint of the REST API";
/// Streams between the two packages; they wait in the network's own queue.
const QUEUE: usize = 1;

/// Lets `api` take the streams that `config` wants it to take.
pub(crate) async fn serve(
    mut api: BoundApi,
    config: &Config,
    network: &Network,
    tasks: &TaskGroup,
) -> Result<BoundApi, PeerError> {
    if matches!(config.consensus.mode, ConsensusMode::Raft { .. }) {
        api.also_serve(handed_over(network.accept_http().map_err(start(PART))?, tasks));
    }
    match &config.rest_api {
        Some(rest) => serve_own_host(api, rest, PART, tasks).await,
        None => Ok(api),
    }
}

/// Lets `api` take the streams of the host of its own that its section names.
pub(crate) async fn serve_own_host(
    mut api: BoundApi,
    section: &HttpApiConfig,
    part: &'static str,
    tasks: &TaskGroup,
) -> Result<BoundApi, PeerError> {
    if let Some(host) = &section.libp2p {
        let identity = Identity::from_parts(&host.peer.to_string(), host.private_key.reveal()).map_err(start(part))?;
        let started = HttpHost::start(&identity, &host.listen_addresses, tasks).await;
        let (host, streams) = started.map_err(start(part))?;
        tracing::info!(addresses = ?host.addresses(), "{part} listens");
        api.also_serve(handed_over(streams, tasks));
    }
    Ok(api)
}

/// The same streams, as the API wants them: neither package knows the other.
fn handed_over(mut streams: HttpStreams, tasks: &TaskGroup) -> ByteStreams {
    let (sender, received) = mpsc::channel(QUEUE);
    let stop = tasks.stop_token();
    tasks.spawn("rest over libp2p", OnExit::Continue, async move {
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return Ok::<(), Infallible>(()),
                stream = streams.recv() => stream,
            };
            let Some(HttpStream { stream, peer, address }) = stream else { return Ok(()) };
            let carried = Carried { stream: Box::new(stream), peer, address };
            if sender.send(carried).await.is_err() {
                return Ok(());
            }
        }
    });
    received
}
