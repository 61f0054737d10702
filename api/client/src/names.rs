//! Looks names up, in one address family if the multiaddress says which.

use std::net::SocketAddr;

use cluster_types::BoxError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses a name may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `/dns4`.
    V4,
    /// `/dns6`.
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl Resolve for Family {
    fn resolve(&self, name: Name) -> Resolving {
        let family = *self;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let usable: Vec<SocketAddr> = found.into_iter().filter(|address| family.has(address)).collect();
            if usable.is_empty() {
                return Err(BoxError::from(format!("{} has no address of that family", name.as_str())));
            }
            Ok::<Addrs, BoxError>(Box::new(usable.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_leads_to_addresses_of_its_family_only() {
        let resolved = Family::V4.resolve("localhost".parse().unwrap()).await.map(Iterator::collect::<Vec<_>>);
        assert!(resolved.unwrap().iter().all(SocketAddr::is_ipv4));
        let Ok(resolved) = Family::V6.resolve("localhost".parse().unwrap()).await else { return };
        assert!(resolved.collect::<Vec<_>>().iter().all(SocketAddr::is_ipv6));
    }

    #[test]
    fn families_are_told_apart() {
        let [four, six]: [SocketAddr; 2] = ["1.2.3.4:5", "[::1]:5"].map(|text| text.parse().unwrap());
        assert!(Family::V4.has(&four) && !Family::V4.has(&six) && Family::V6.has(&six) && !Family::V6.has(&four));
    }
}
