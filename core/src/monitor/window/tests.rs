//! Bounds, expiry and suspicion.

use std::sync::LazyLock;

use super::*;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(seconds: u32) -> Now {
    let wall = Timestamp::from_unix_seconds(1_800_000_000 + i64::from(seconds));
    Now { wall, instant: *START + Duration::from_secs(seconds.into()) }
}

fn metric(name: &str, peer: PeerId, value: &str, expire: Now) -> Metric {
    Metric {
        name: name.to_owned(),
        peer,
        value: value.to_owned(),
        expire: expire.wall.unix_nanos(),
        valid: true,
        weight: 0,
        partitionable: false,
        received_at: 0,
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_metric_alerts_once_and_again_only_after_a_fresh_one() {
    let (local, peer) = (PeerId::random(), PeerId::random());
    let mut window = Window::new(local);
    window.record(metric("ping", peer, "", at(10)), at(0)).unwrap();
    assert_eq!(window.check(at(9)), []);
    assert_eq!(window.check(at(11)).len(), 1);
    assert_eq!(window.check(at(12)), []);
    window.record(metric("ping", peer, "", at(20)), at(13)).unwrap();
    assert_eq!(window.check(at(21)).len(), 1);
    let times: Vec<_> = window.alerts().iter().map(|alert| alert.triggered_at).collect();
    assert_eq!(times, [at(21).wall, at(11).wall], "newest first");
}

#[test]
fn alerts_are_bounded_and_the_oldest_go() {
    let mut window = Window::new(PeerId::random());
    for n in 0..u32::try_from(MAX_ALERTS).unwrap() + 5 {
        window.record(metric("ping", PeerId::random(), "", at(n)), at(n)).unwrap();
        window.check(at(n + 1));
    }
    let alerts = window.alerts();
    assert_eq!(alerts.len(), MAX_ALERTS);
    assert!(alerts.first().unwrap().triggered_at > alerts.last().unwrap().triggered_at);
}

#[test]
fn only_members_raise_alerts_and_suspicion_once_the_members_are_known() {
    let [local, member, stranger, unheard] = [(); 4].map(|()| PeerId::random());
    let mut window = Window::new(local);
    for peer in [local, member, stranger] {
        window.record(metric("ping", peer, "", at(10)), at(0)).unwrap();
    }
    assert_eq!(window.suspects(at(11), PATIENCE), BTreeSet::from([member, stranger]), "before they are");
    window.set_members(&BTreeSet::from([local, member, unheard]), at(0).instant);
    assert_eq!(window.suspects(at(9), PATIENCE), BTreeSet::new());
    assert_eq!(window.suspects(at(11), PATIENCE), BTreeSet::from([member]));
    let alerted: BTreeSet<_> = window.check(at(11)).into_iter().map(|alert| alert.metric.peer).collect();
    assert_eq!(alerted, BTreeSet::from([local, member]));
    window.record(metric("ping", member, "", at(100)), at(12)).unwrap();
    assert_eq!(window.suspects(at(30), PATIENCE), BTreeSet::from([unheard]));
    window.set_members(&BTreeSet::from([local]), at(30).instant);
    assert_eq!(window.suspects(at(101), PATIENCE), BTreeSet::new(), "a cluster of one suspects nobody");
}

#[test]
fn a_flood_of_strangers_is_bounded_and_never_displaces_members() {
    let [local, member] = [(); 2].map(|()| PeerId::random());
    let mut window = Window::new(local);
    window.set_members(&BTreeSet::from([local, member]), at(0).instant);
    for _ in 0..MAX_PEERS {
        window.record(metric("ping", PeerId::random(), "", at(10)), at(0)).unwrap();
    }
    assert_eq!(window.record(metric("ping", PeerId::random(), "", at(10)), at(0)), Err(Full));
    window.record(metric("ping", member, "", at(10)), at(0)).unwrap();
    let late = PeerId::random();
    window.record(metric("ping", late, "", at(30)), at(11)).unwrap();
    assert!(window.peers.contains_key(&member) && window.peers.contains_key(&late));
    assert!(window.peers.len() <= MAX_PEERS + 1);
}

#[test]
fn one_peer_cannot_fill_the_memory() {
    let (local, peer) = (PeerId::random(), PeerId::random());
    let mut window = Window::new(local);
    for n in 0..MAX_NAMES {
        window.record(metric(&format!("tag:{n}"), peer, "", at(10)), at(0)).unwrap();
    }
    assert_eq!(window.record(metric("one more", peer, "", at(10)), at(0)), Err(Full));
    let big = "x".repeat(MAX_PEER_BYTES - 1024);
    window.record(metric("tag:1", peer, &big, at(10)), at(0)).unwrap();
    assert_eq!(window.record(metric("tag:2", peer, &big, at(10)), at(0)), Err(Full));
    window.record(metric("tag:1", peer, &big, at(10)), at(0)).unwrap();
}

#[test]
fn a_ping_without_a_node_keeps_the_last_good_one() {
    let (local, peer) = (PeerId::random(), PeerId::random());
    let mut window = Window::new(local);
    let full = r#"{"peer_name":"a","ipfs_id":"x","ipfs_addresses":["/ip4/10.0.0.1/tcp/4001"]}"#;
    let news = window.record(metric("ping", peer, full, at(10)), at(0)).unwrap();
    assert_eq!(news, News { sign_of_life: true, node_changed: true });
    let news = window.record(metric("ping", peer, r#"{"peer_name":"b"}"#, at(10)), at(1)).unwrap();
    assert_eq!(news, News::default());
    window.record(metric("ping", peer, "garbage", at(10)), at(1)).unwrap();
    let value = window.ping_value(&peer).unwrap();
    assert_eq!((value.peer_name.as_str(), value.ipfs_id.as_str(), value.ipfs_addresses.len()), ("b", "x", 1));
}

#[test]
fn a_jump_of_the_wall_clock_expires_nothing_and_keeps_nothing_alive() {
    let [local, member] = [(); 2].map(|()| PeerId::random());
    let mut window = Window::new(local);
    window.record(metric("ping", member, "", at(10)), at(0)).unwrap();
    let ahead = Now { wall: at(1_000_000).wall, ..at(5) };
    assert_eq!((window.metrics("ping", ahead).len(), window.check(ahead).len()), (1, 0));
    assert_eq!(window.suspects(ahead, PATIENCE), BTreeSet::new());
    assert!(window.snapshot(&["ping".to_owned()], ahead).get("ping", &member).is_some());
    let behind = Now { wall: at(0).wall, ..at(11) };
    assert_eq!(window.suspects(behind, PATIENCE), BTreeSet::from([member]));
    assert!(window.snapshot(&["ping".to_owned()], behind).get("ping", &member).is_none());
}
