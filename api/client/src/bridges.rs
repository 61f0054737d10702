//! Endpoints over libp2p, made into sockets that HTTP can use.

use std::time::Duration;

use cluster_dial::{Bridge, is_over_libp2p};
use cluster_types::{ErrorChain, ErrorClass, Protocol};

use crate::{ClientConfig, ClientError};

/// How long connecting to a peer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Puts a bridge in the place of every endpoint over libp2p. One that cannot be made is left out as long as there are other
/// endpoints. Such a bridge is encrypted, and HTTPS is not spoken through it.
pub(crate) async fn open(config: &mut ClientConfig) -> Result<Vec<Bridge>, ClientError> {
    let mut bridges = Vec::new();
    if !config.endpoints.iter().any(is_over_libp2p) {
        return Ok(bridges);
    }
    let limit = config.timeout.map_or(LIMIT, |timeout| timeout.min(LIMIT));
    let (mut reachable, mut failure) = (Vec::new(), None);
    for mut address in std::mem::take(&mut config.endpoints) {
        if !is_over_libp2p(&address) {
            if config.https {
                address.push(Protocol::Https);
            }
            reachable.push(address);
            continue;
        }
        match Bridge::open(&address, &config.secret, limit).await {
            Ok(bridge) => {
                reachable.push(bridge.address());
                bridges.push(bridge);
            }
            Err(error) => {
                let reason = ErrorChain(&error).to_string();
                if error.class() != ErrorClass::Unavailable {
                    return Err(ClientError::Local { reason });
                }
                failure = Some(ClientError::Unreachable { reason });
            }
        }
    }
    config.https = false;
    config.endpoints = reachable;
    match failure {
        Some(failure) if config.endpoints.is_empty() => Err(failure),
        Some(_) | None => Ok(bridges),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_reached_is_left_to_the_others() {
        let mut alone = ClientConfig::new(NOBODY.parse().unwrap());
        let error = open(&mut alone).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unreachable { .. }) && error.class() == ErrorClass::Unavailable,
            "{error}"
        );
        let plain = "/ip4/127.0.0.1/tcp/9094";
        let mut both = ClientConfig {
            endpoints: vec![NOBODY.parse().unwrap(), plain.parse().unwrap()],
            https: true,
            ..ClientConfig::new(plain.parse().unwrap())
        };
        assert!(open(&mut both).await.unwrap().is_empty());
        assert_eq!(both.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("{plain}/https")]);
        assert!(!both.https);
        let mut wrong = ClientConfig { secret: "xy".to_owned(), ..ClientConfig::new(plain.parse().unwrap()) };
        wrong.endpoints.push(NOBODY.parse().unwrap());
        assert!(matches!(open(&mut wrong).await, Err(ClientError::Local { .. })), "no other endpoint mends a secret");
    }
}
