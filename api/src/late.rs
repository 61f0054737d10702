//! The service behind the API, which may come later than the first request: a peer that joins is asked whether it lives
//! long before it knows the pinset.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster_core::cluster::ClusterService;
use cluster_types::{ErrorClass, WireError};
use tokio_util::sync::CancellationToken;

/// The service, once it is there.
pub(crate) struct Late {
    service: OnceLock<Arc<dyn ClusterService>>,
    there: CancellationToken,
    stop: CancellationToken,
    limit: Duration,
}

impl Late {
    /// Nothing yet. Who waits does so for at most `limit`, and no longer than until `stop`.
    pub(crate) fn new(limit: Duration, stop: CancellationToken) -> Self {
        Self { service: OnceLock::new(), there: CancellationToken::new(), stop, limit }
    }

    /// Lets those go on who wait. Later services are not taken.
    pub(crate) fn begin(&self, service: Arc<dyn ClusterService>) {
        let _ = self.service.set(service);
        self.there.cancel();
    }

    /// The service, if it is there.
    pub(crate) fn get(&self) -> Option<&Arc<dyn ClusterService>> {
        self.service.get()
    }

    /// Returns when the service is there.
    pub(crate) async fn ready(&self) -> Result<(), WireError> {
        let late = |why: &str| Err(WireError::new(ErrorClass::Unavailable, why));
        tokio::select! {
            biased;
            () = self.there.cancelled() => Ok(()),
            () = self.stop.cancelled() => late("this peer stops"),
            () = tokio::time::sleep(self.limit) => late("this peer is still starting, or joining its cluster: try again later"),
        }
    }
}

impl Deref for Late {
    type Target = Arc<dyn ClusterService>;

    fn deref(&self) -> &Self::Target {
        self.get().expect("handlers that need the service are called when it is ready")
    }
}
