//! Where the numbers of all rooms come together for Prometheus, and what the process itself adds to them.

use std::sync::Arc;

use cluster_api::{ApiServer, MetricsServer, PinningServer, ProxyServer};
use cluster_core::cluster::Cluster;
use cluster_core::ports::IpfsNode;
use cluster_core::task::TaskGroup;
use cluster_core::telemetry::{ClusterGauges, CoreTelemetry, CountedNode};
use cluster_store::Store;
use prometheus_client::registry::Registry;

use crate::config::TelemetryConfig;
use crate::peer::{PeerError, start};
use crate::process::ProcessGauges;

/// What the names of the original begin with, and so do ours.
const PREFIX: &str = "ipfscluster";
/// Where a failure to start is placed.
const PART: &str = "the Prometheus endpoint (observations.metrics.prometheus_endpoint)";

/// Takes the address of the endpoint and answers there, if the configuration wants that.
pub(crate) async fn open(config: &TelemetryConfig, tasks: &TaskGroup) -> Result<Option<MetricsServer>, PeerError> {
    if !config.enabled {
        return Ok(None);
    }
    let bound = MetricsServer::bind(config.prometheus_address.clone()).await.map_err(start(PART))?;
    Ok(Some(bound.open(tasks)))
}

/// `node` with its calls counted, and where they are.
pub(crate) fn counted(node: Arc<dyn IpfsNode>) -> (Arc<dyn IpfsNode>, CoreTelemetry) {
    let counts = CoreTelemetry::default();
    (Arc::new(CountedNode::new(node, counts.clone())), counts)
}

/// What this peer serves, and counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served<'a> {
    /// The REST API.
    pub(crate) api: Option<&'a ApiServer>,
    /// The pinning service.
    pub(crate) pinning: Option<&'a PinningServer>,
    /// The IPFS proxy.
    pub(crate) proxy: Option<&'a ProxyServer>,
}

/// Everything that there is to show.
pub(crate) fn registry(core: &CoreTelemetry, store: &Store, served: Served<'_>, cluster: Arc<Cluster>) -> Registry {
    let mut registry = Registry::default();
    // Their names are everybody's.
    registry.register_collector(Box::new(ProcessGauges));
    let ours = registry.sub_registry_with_prefix(PREFIX);
    ours.register_collector(Box::new(ClusterGauges::new(cluster)));
    core.register(ours);
    store.telemetry().register(ours);
    if let Some(api) = served.api {
        api.telemetry().register(ours);
    }
    if let Some(pinning) = served.pinning {
        pinning.register(ours);
    }
    if let Some(proxy) = served.proxy {
        proxy.telemetry().register(ours);
    }
    registry
}
