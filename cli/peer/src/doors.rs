//! What a peer serves over HTTP: every address is taken before the peer joins a cluster, since a member that cannot serve is one
//! voter less; answers come as soon as there is a cluster to answer for.

use std::sync::Arc;

use cluster_api::{ApiServer, BoundApi, MetricsServer, ProxyServer};
use cluster_core::cluster::Cluster;
use cluster_core::task::TaskGroup;
use cluster_core::telemetry::CoreTelemetry;
use cluster_net::Network;
use cluster_store::Store;

use crate::config::Config;
use crate::grace::{GRACE, Grace};
use crate::peer::{PeerError, start};
use crate::{over_libp2p, telemetry, wire};

/// Addresses that are taken.
pub(crate) struct Taken {
    api: Option<BoundApi>,
    proxy: Option<ProxyServer>,
    metrics: Option<MetricsServer>,
}

/// The servers.
pub(crate) struct Doors {
    pub(crate) api: Option<ApiServer>,
    pub(crate) proxy: Option<ProxyServer>,
    metrics: Option<MetricsServer>,
}

impl Taken {
    /// Takes the addresses of the configuration.
    pub(crate) async fn take(config: &Config, services: &TaskGroup) -> Result<Self, PeerError> {
        let api = match &config.rest_api {
            Some(rest) => Some(ApiServer::bind(wire::rest(rest, &config.folder)).await.map_err(start("the REST API"))?),
            None => None,
        };
        let proxy = open_proxy(config, services).await?;
        Ok(Self { api, proxy, metrics: telemetry::open(&config.telemetry, services).await? })
    }

    /// Answers who watches this peer; everybody else waits for [`Doors::begin`].
    pub(crate) async fn open(
        self,
        config: &Config,
        network: &Network,
        services: &TaskGroup,
    ) -> Result<Doors, PeerError> {
        let api = match self.api {
            Some(bound) => Some(over_libp2p::serve(bound, config, network, services).await?.open(services)),
            None => None,
        };
        Ok(Doors { api, proxy: self.proxy, metrics: self.metrics })
    }
}

impl Doors {
    /// Answers for `cluster` from now on.
    pub(crate) fn begin(&self, counts: &CoreTelemetry, store: &Store, cluster: Arc<Cluster>) {
        if let Some(metrics) = &self.metrics {
            let served = telemetry::Served { api: self.api.as_ref(), proxy: self.proxy.as_ref() };
            metrics.begin(telemetry::registry(counts, store, served, Arc::clone(&cluster)));
        }
        if let Some(proxy) = &self.proxy {
            proxy.begin(Arc::clone(&cluster) as _);
        }
        if let Some(api) = &self.api {
            api.begin(cluster);
        }
    }

    /// Takes no further requests, and lets those that run end in time.
    pub(crate) async fn stop(self, grace: &mut Grace) {
        if let Some(api) = self.api
            && !api.stop(grace.share(GRACE / 4)).await
        {
            grace.late("REST requests");
        }
        if let Some(proxy) = self.proxy
            && !proxy.stop(grace.share(GRACE / 8)).await
        {
            grace.late("requests of the IPFS proxy");
        }
        if let Some(metrics) = self.metrics
            && !metrics.stop(grace.share(GRACE / 8)).await
        {
            grace.late("the Prometheus endpoint");
        }
    }
}

/// Takes the addresses of the IPFS proxy and answers there, if the configuration wants that.
async fn open_proxy(config: &Config, services: &TaskGroup) -> Result<Option<ProxyServer>, PeerError> {
    const PART: &str = "the IPFS proxy (api.ipfsproxy)";
    let Some(proxy) = &config.ipfs_proxy else { return Ok(None) };
    let bound = ProxyServer::bind(wire::proxy(proxy, config)).await.map_err(start(PART))?;
    Ok(Some(bound.open(services).map_err(start(PART))?))
}
