//! Asks the running peer of a folder, as its own configuration says where it listens and who may ask.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use cluster_client::{Client, ClientConfig, Items, Listing};
use cluster_peer::config::{Config, ConfigFolder};
use cluster_peer::{Scope, own_token};
use cluster_types::{Multiaddr, Pin, Protocol};

/// The REST API of the peer that runs in a folder.
pub(super) struct Endpoint {
    client: Client,
    address: Multiaddr,
}

/// The endpoint of a peer with this configuration.
pub(super) fn endpoint(config: &Config, folder: &ConfigFolder) -> anyhow::Result<Endpoint> {
    let rest = config.rest_api.as_ref();
    let rest = rest.context("the peer is running, and its REST API is not configured: stop the peer first")?;
    let endpoints: Vec<Multiaddr> = rest.listen_addresses.iter().map(reachable).collect();
    let address = endpoints.first().cloned().context("the REST API has no address")?;
    let scopes = &rest.access.scopes;
    let may_read = |user: &str| scopes.get(user).is_none_or(|scopes| scopes.has(Scope::Read));
    let settings = ClientConfig {
        endpoints,
        https: rest.tls.is_some(),
        // The certificate is for the names by which others call this peer, and the address is its own.
        insecure: true,
        bearer: rest.basic_auth.as_ref().and_then(|users| own_token(users, folder, may_read)),
        ..ClientConfig::new(address.clone())
    };
    Ok(Endpoint { client: Client::new(settings)?, address })
}

impl Endpoint {
    /// Where it is.
    pub(super) fn address(&self) -> &Multiaddr {
        &self.address
    }

    /// The pinset, pin by pin.
    pub(super) async fn pins(&self) -> anyhow::Result<Items<Pin>> {
        Ok(self.client.allocations(&Listing::of("all")).await?)
    }
}

/// An address to connect to: who listens on every interface is on the loopback one, too.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other part stays as it is")]
fn reachable(listen: &Multiaddr) -> Multiaddr {
    let part = |part| match part {
        Protocol::Ip4(ip) if ip.is_unspecified() => Protocol::Ip4(Ipv4Addr::LOCALHOST),
        Protocol::Ip6(ip) if ip.is_unspecified() => Protocol::Ip6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    listen.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_interface_is_asked_on_the_loopback_one() {
        for (listen, expected) in [
            ("/ip4/0.0.0.0/tcp/9094", "/ip4/127.0.0.1/tcp/9094"),
            ("/ip6/::/tcp/9094", "/ip6/::1/tcp/9094"),
            ("/ip4/10.0.0.1/tcp/9094", "/ip4/10.0.0.1/tcp/9094"),
            ("/unix/run%2Fapi", "/unix/run%2Fapi"),
        ] {
            assert_eq!(reachable(&listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
