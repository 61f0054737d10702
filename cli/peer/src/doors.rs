//! What a peer serves over HTTP: every address is taken before the peer joins a cluster, since a member that cannot serve is one
//! voter less; answers come as soon as there is a cluster to answer for.

use std::sync::Arc;

use cluster_api::{ApiServer, BoundApi, MetricsServer, PinningServer, ProxyServer};
use cluster_core::cluster::Cluster;
use cluster_core::task::TaskGroup;
use cluster_core::telemetry::CoreTelemetry;
use cluster_net::Network;
use cluster_store::Store;

use crate::config::Config;
use crate::grace::{GRACE, Grace};
use crate::peer::{PeerError, start};
use crate::tokens::FolderTokens;
use crate::{over_libp2p, telemetry, wire};

/// Where failures to start it are placed.
const PINNING_SERVICE: &str = "the pinning service (api.pinsvcapi)";
/// Where failures to start its libp2p host are placed.
const PINNING_OVER_LIBP2P: &str = "the libp2p endpoint of the pinning service";

/// Addresses that are taken.
pub(crate) struct Taken {
    api: Option<BoundApi>,
    pinning: Option<BoundApi>,
    proxy: Option<ProxyServer>,
    metrics: Option<MetricsServer>,
}

/// The servers.
pub(crate) struct Doors {
    pub(crate) api: Option<ApiServer>,
    pub(crate) pinning: Option<PinningServer>,
    pub(crate) proxy: Option<ProxyServer>,
    metrics: Option<MetricsServer>,
}

impl Taken {
    /// Takes the addresses of the configuration.
    pub(crate) async fn take(config: &Config, services: &TaskGroup) -> Result<Self, PeerError> {
        let api = match &config.rest_api {
            Some(rest) => {
                let settings = wire::http_api(rest, FolderTokens::new(&config.folder));
                Some(ApiServer::bind(settings).await.map_err(start("the REST API"))?)
            }
            None => None,
        };
        let pinning = match &config.pinning_service {
            Some(pinning) => {
                let settings = wire::http_api(pinning, FolderTokens::of_pinning_service(&config.folder));
                let bound = ApiServer::bind(settings).await.map_err(start(PINNING_SERVICE))?;
                Some(over_libp2p::serve_own_host(bound, pinning, PINNING_OVER_LIBP2P, services).await?)
            }
            None => None,
        };
        let proxy = open_proxy(config, services).await?;
        Ok(Self { api, pinning, proxy, metrics: telemetry::open(&config.telemetry, services).await? })
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
        let pinning = self.pinning.map(|bound| bound.open_pinning(services));
        Ok(Doors { api, pinning, proxy: self.proxy, metrics: self.metrics })
    }
}

impl Doors {
    /// Answers for `cluster` from now on.
    pub(crate) fn begin(&self, counts: &CoreTelemetry, store: &Store, cluster: Arc<Cluster>) {
        if let Some(metrics) = &self.metrics {
            let (api, pinning, proxy) = (self.api.as_ref(), self.pinning.as_ref(), self.proxy.as_ref());
            let served = telemetry::Served { api, pinning, proxy };
            metrics.begin(telemetry::registry(counts, store, served, Arc::clone(&cluster)));
        }
        if let Some(proxy) = &self.proxy {
            proxy.begin(Arc::clone(&cluster) as _);
        }
        if let Some(pinning) = &self.pinning {
            pinning.begin(Arc::clone(&cluster) as _, Arc::clone(&cluster) as _);
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
        if let Some(pinning) = self.pinning
            && !pinning.stop(grace.share(GRACE / 8)).await
        {
            grace.late("requests of the pinning service");
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
