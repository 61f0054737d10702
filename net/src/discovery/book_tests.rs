//! Tests of the address book: back-off, bounds, and whom to dial.

use super::*;

fn address(port: u16) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_remembered_peer_is_dialled_at_once_and_again_with_growing_waits() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let mut now = Instant::now();
    book.remember(peer, &[address(1)], now);
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(book.take_due(now), [(peer, vec![address(1)])]);
        assert!(book.take_due(now).is_empty(), "it is being dialled");
        book.dial_failed(&peer, now, 1.0);
        let next = book.next_due().unwrap();
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits[0], FIRST_WAIT);
    assert_eq!(waits[1], FIRST_WAIT * 2);
    assert_eq!(waits[11], LONGEST_WAIT);
    book.take_due(now);
    book.connected(peer, Some(&address(1)), Instant::now(), 0.0);
    assert_eq!(book.next_due(), None);
    book.disconnected(&peer, now, 0.0);
    assert_eq!(book.next_due(), Some(now + FIRST_WAIT / 2));
}

#[tokio::test(start_paused = true)]
async fn when_a_remembered_peer_is_back_the_others_are_tried_soon() {
    let [back, away, stranger] = [(); 3].map(|()| PeerId::random());
    let mut book = AddressBook::new(PeerId::random());
    let mut now = Instant::now();
    for peer in [back, away] {
        book.remember(peer, &[address(1)], now);
    }
    for _ in 0..12 {
        for (peer, _) in book.take_due(now) {
            book.dial_failed(&peer, now, 1.0);
        }
        now = book.next_due().unwrap();
    }
    for (peer, _) in book.take_due(now) {
        book.dial_failed(&peer, now, 1.0);
    }
    book.connected(stranger, None, now, 1.0);
    assert_eq!(book.next_due(), Some(now + LONGEST_WAIT), "anybody may come");
    book.connected(back, None, now, 1.0);
    assert_eq!(book.next_due(), Some(now + HURRY));
    now += HURRY;
    assert_eq!(book.take_due(now), [(away, vec![address(1)])]);
    book.dial_failed(&away, now, 1.0);
    assert_eq!(book.next_due(), Some(now + LONGEST_WAIT), "tried once");
    let tried = now;
    book.connected(back, None, now, 1.0);
    book.disconnected(&back, now, 1.0);
    book.connected(back, None, now, 1.0);
    assert_eq!(
        book.next_due(),
        Some(tried + LONGEST_WAIT),
        "by one that comes and goes they are not tried without end"
    );
    now += HURRY_EVERY;
    book.connected(back, None, now, 1.0);
    assert_eq!(book.next_due(), Some(tried + LONGEST_WAIT), "it was connected");
    book.disconnected(&back, now, 1.0);
    book.connected(back, None, now, 1.0);
    assert_eq!(book.next_due(), Some(now + HURRY));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_peer_is_disconnected_and_its_addresses_are_gone() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    book.remember(peer, &[address(1)], now);
    book.connected(peer, None, Instant::now(), 0.0);
    assert_eq!(book.connected_peers(), [peer]);
    book.forget(&peer);
    assert!(book.addresses_of(&peer).is_empty());
    assert_eq!(book.take_to_disconnect(), [peer]);
    // What it said of itself comes late.
    book.learn(peer, &[address(2)], now);
    assert!(book.addresses_of(&peer).is_empty());
    book.disconnected(&peer, now, 0.0);
    assert!(book.connected_peers().is_empty());
    assert_eq!(book.next_due(), None);
    assert!(book.peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn hostile_peers_cannot_fill_the_book() {
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    let friend = PeerId::random();
    book.remember(friend, &[address(1)], now);
    for _ in 0..(MAX_STRANGERS + 50) {
        let many: Vec<Multiaddr> = (1..100).map(address).collect();
        book.learn(PeerId::random(), &many, now);
    }
    assert_eq!(book.peers.len(), MAX_STRANGERS + 1);
    assert!(book.peers.values().all(|known| known.addresses.len() <= MAX_ADDRESSES));
    assert_eq!(book.addresses_of(&friend), [address(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_found_nearby_is_tried_a_few_times_only() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let mut now = Instant::now();
    book.found(peer, &[address(1)], now);
    let mut tries = 0;
    while let Some(next) = book.next_due() {
        now = next;
        assert_eq!(book.take_due(now).len(), 1);
        book.dial_failed(&peer, now, 0.5);
        tries += 1;
    }
    assert_eq!(tries, TRIES_FOR_FOUND);
    assert_eq!(book.remembered().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_address_that_worked_comes_first() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    book.remember(peer, &[address(1), address(2)], now);
    let before = book.revision();
    book.connected(peer, Some(&address(2)), Instant::now(), 0.0);
    assert_eq!(book.addresses_of(&peer), [address(2), address(1)]);
    assert!(book.revision() > before);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_moved_often_is_still_found() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    for port in 1..100 {
        let before = book.revision();
        book.remember(peer, &[address(port)], now);
        assert!(book.addresses_of(&peer).contains(&address(port)), "{port}");
        assert!(book.revision() > before);
        assert!(book.addresses_of(&peer).len() <= MAX_ADDRESSES);
    }
    book.connected(peer, Some(&address(99)), Instant::now(), 0.0);
    // More than there is room for, again and again: the same ones stay, and what worked last does.
    let many: Vec<Multiaddr> = (200..230).map(address).collect();
    book.learn(peer, &many, now);
    let (kept, revision) = (book.addresses_of(&peer), book.revision());
    assert_eq!(kept.len(), MAX_ADDRESSES);
    book.learn(peer, &many, now);
    assert_eq!((book.addresses_of(&peer), book.revision()), (kept, revision));
}

#[tokio::test(start_paused = true)]
async fn what_the_local_network_says_displaces_nothing_and_is_not_kept() {
    let peer = PeerId::random();
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    book.remember(peer, &[address(1)], now);
    let revision = book.revision();
    for port in 1000..1100 {
        book.found(peer, &[address(port)], now);
    }
    assert_eq!(book.revision(), revision);
    assert_eq!(book.remembered().collect::<Vec<_>>(), [(peer, &[address(1)][..])]);
    assert_eq!(book.addresses_of(&peer).len(), 1 + MAX_NEARBY);
    let (_, dialled) = book.take_due(now).remove(0);
    assert_eq!((dialled[0].clone(), dialled.len()), (address(1), 1 + MAX_NEARBY), "it may help all the same");
    book.connected(peer, Some(&address(1099)), Instant::now(), 0.0);
    assert_eq!(book.remembered().next().unwrap().1[0], address(1099), "what worked is believed");
}

#[tokio::test(start_paused = true)]
async fn few_strangers_are_dialled_at_a_time() {
    let mut book = AddressBook::new(PeerId::random());
    let now = Instant::now();
    for _ in 0..100 {
        book.found(PeerId::random(), &[address(1)], now);
    }
    let first = book.take_due(now);
    assert_eq!(first.len(), MAX_STRANGER_DIALS);
    assert!(book.next_due().unwrap() > now, "the others wait");
    let friend = PeerId::random();
    book.remember(friend, &[address(2)], now);
    assert_eq!(book.take_due(now), [(friend, vec![address(2)])], "a member does not");
    for (peer, _) in &first {
        book.connected(*peer, None, Instant::now(), 0.0);
    }
    assert_eq!(book.take_due(now + STRANGER_WAIT).len(), MAX_STRANGER_DIALS);
}
