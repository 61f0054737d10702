//! Pure rules about addresses: which can be dialled, and which are announced.

use std::net::IpAddr;

use cluster_types::{Multiaddr, PeerId, Protocol};

/// The longest address in bytes that is looked at: a full domain name, a port and a peer id fit.
const MAX_ADDRESS: usize = 400;

/// The peer named at the end of an address.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// An address without the peer at its end.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if peer_of(&address).is_some() {
        address.pop();
    }
    address
}

/// An address with `peer` at its end.
pub(crate) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    without_peer(address).with(Protocol::P2p(peer))
}

/// The address without `/p2p`, if it can be dialled and does not name another peer: a host and a TCP port.
#[expect(clippy::wildcard_enum_match_arm, reason = "only what is named here can be dialled, whatever parts are added")]
pub(crate) fn dialable(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    if address.len() > MAX_ADDRESS || peer_of(address).is_some_and(|named| named != *peer) {
        return None;
    }
    let address = without_peer(address.clone());
    let mut parts = address.iter();
    let host_is_usable = match parts.next()? {
        Protocol::Ip4(ip) => !ip.is_unspecified(),
        Protocol::Ip6(ip) => !ip.is_unspecified(),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => true,
        // What a dnsaddr record leads to is checked when it is dialled.
        Protocol::Dnsaddr(_) => return parts.next().is_none().then_some(address),
        _ => false,
    };
    let has_port = matches!(parts.next()?, Protocol::Tcp(port) if port != 0);
    let is_whole = parts.next().is_none();
    (host_is_usable && has_port && is_whole).then_some(address)
}

/// What this peer says of itself: `announce` if there is any, else where it listens; never what `no_announce` covers.
pub(crate) fn announced(listening: &[Multiaddr], announce: &[Multiaddr], no_announce: &[Multiaddr]) -> Vec<Multiaddr> {
    let offered = if announce.is_empty() { listening } else { announce };
    let mut chosen: Vec<Multiaddr> = offered
        .iter()
        .filter(|address| !no_announce.iter().any(|rule| covers(rule, address)))
        .map(|address| without_peer(address.clone()))
        .collect();
    chosen.sort_by_cached_key(Multiaddr::to_string);
    chosen.dedup();
    chosen
}

/// Whether a rule (an address or a mask) covers an address.
fn covers(rule: &Multiaddr, address: &Multiaddr) -> bool {
    match (ip_of(rule), rule.iter().nth(1)) {
        (Some(network), Some(Protocol::Ipcidr(bits))) => {
            ip_of(address).is_some_and(|ip| same_network(network, ip, u32::from(bits)))
        }
        _ => without_peer(rule.clone()) == without_peer(address.clone()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other part is not an IP address")]
fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

fn same_network(network: IpAddr, ip: IpAddr, bits: u32) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let shift = 32_u32.saturating_sub(bits);
            let head = |ip: u32| u64::from(ip) >> shift;
            head(network.to_bits()) == head(ip.to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let shift = 128_u32.saturating_sub(bits);
            let head = |ip: u128| ip.checked_shr(shift).unwrap_or(0);
            head(network.to_bits()) == head(ip.to_bits())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_tcp_hosts_of_the_named_peer_are_dialled() {
        let peer = PeerId::random();
        let good = address("/ip4/10.0.0.1/tcp/9096");
        assert_eq!(dialable(&with_peer(good.clone(), peer), &peer), Some(good.clone()));
        assert_eq!(dialable(&with_peer(good.clone(), PeerId::random()), &peer), None);
        assert_eq!(dialable(&address("/dnsaddr/example.com"), &peer), Some(address("/dnsaddr/example.com")));
        for bad in [
            "/ip4/0.0.0.0/tcp/9096",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/10.0.0.1/udp/9096/quic-v1",
            "/ip4/10.0.0.1/tcp/1/ws",
            "/memory/1",
        ] {
            assert_eq!(dialable(&address(bad), &peer), None, "{bad}");
        }
    }

    #[test]
    fn masks_and_exact_addresses_are_not_announced() {
        let listening =
            [address("/ip4/127.0.0.1/tcp/1"), address("/ip4/10.1.2.3/tcp/1"), address("/ip6/fe80::1/tcp/1")];
        let rules = [address("/ip4/10.0.0.0/ipcidr/8"), address("/ip4/127.0.0.1/tcp/1")];
        assert_eq!(announced(&listening, &[], &rules), [address("/ip6/fe80::1/tcp/1")]);
        let everything = [address("/ip4/0.0.0.0/ipcidr/0"), address("/ip6/::/ipcidr/0")];
        assert!(announced(&listening, &[], &everything).is_empty());
        let announce = [address("/dns4/peer.example/tcp/9096")];
        assert_eq!(announced(&listening, &announce, &rules), announce);
    }
}
