//! The suites of both ports over real TCP on loopback, and what only a real network can get wrong: secrets, garbage,
//! forgeries, restarts.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{CallHandler, Gossip, Purpose, Topic, Transport, TransportError};
use cluster_core::task::TaskGroup;
use cluster_core::testing::suite;
use cluster_core::testing::suite::transport::{NetworkFactory, PATIENCE, TestPeer, connect_all, until};
use cluster_net::{ClusterSecret, Identity, NetError, Network, NetworkConfig, TrimRule, protocol_of};
use cluster_types::{Multiaddr, PeerId, Protocol};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Real networks on loopback.
struct OverTcp {
    tasks: TaskGroup,
    secret: ClusterSecret,
    dead: Multiaddr,
}

impl OverTcp {
    fn new() -> Self {
        // A port that was free a moment ago, and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dead = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        Self { tasks: TaskGroup::new(), secret: ClusterSecret::generate(), dead }
    }

    fn config(&self) -> NetworkConfig {
        let mut config = NetworkConfig::new(Identity::generate(), Some(self.secret.clone()), vec![anywhere()]);
        // Generous: the machine may be busy with other tests.
        config.dial_timeout = Duration::from_secs(10);
        config
    }

    async fn start(&self, config: NetworkConfig) -> Arc<Network> {
        Network::start(config, &self.tasks).await.unwrap()
    }

    async fn network(&self) -> Arc<Network> {
        self.start(self.config()).await
    }
}

#[async_trait]
impl NetworkFactory for OverTcp {
    async fn peers(&self, count: usize) -> Vec<TestPeer> {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(as_test_peer(&self.network().await));
        }
        peers
    }

    fn dead_address(&self) -> Multiaddr {
        self.dead.clone()
    }
}

fn anywhere() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

fn as_test_peer(network: &Arc<Network>) -> TestPeer {
    TestPeer { transport: Arc::clone(network) as Arc<dyn Transport>, gossip: Arc::clone(network) as Arc<dyn Gossip> }
}

struct Echo;

#[async_trait]
impl CallHandler for Echo {
    async fn handle(&self, _from: PeerId, _purpose: Purpose, body: Bytes) -> Bytes {
        assert_ne!(body, "panic", "asked to");
        body
    }
}

async fn echo(from: &Network, to: PeerId, body: &'static str) -> Result<Bytes, TransportError> {
    from.call(to, Purpose::Call, Bytes::from_static(body.as_bytes()), PATIENCE).await
}

fn socket_of(network: &Network) -> SocketAddr {
    let address = network.own_addresses().remove(0);
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => SocketAddr::from((ip, port)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_tcp_keep_the_contract() {
    let factory = OverTcp::new();
    suite::transport::run_all(&factory).await;
    assert!(factory.tasks.shut_down(PATIENCE).await.is_empty(), "every task ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_over_tcp_keeps_the_contract() {
    let factory = OverTcp::new();
    suite::gossip::run_all(&factory).await;
    assert!(factory.tasks.shut_down(PATIENCE).await.is_empty(), "every task ends");
}

#[tokio::test]
async fn another_secret_does_not_get_in_and_neither_does_none() {
    let factory = OverTcp::new();
    let inside = factory.network().await;
    for secret in [Some(ClusterSecret::generate()), None] {
        let mut config = factory.config();
        config.secret = secret;
        config.dial_timeout = Duration::from_secs(1);
        let outside = factory.start(config).await;
        let address = inside.own_addresses().remove(0);
        let error = outside.dial(address, PATIENCE).await.unwrap_err();
        assert!(matches!(error, TransportError::Unreachable { .. }), "{error:?}");
        assert!(inside.connected().is_empty() && outside.connected().is_empty());
    }
    let friend = factory.network().await;
    assert_eq!(friend.dial(inside.own_addresses().remove(0), PATIENCE).await.unwrap(), inside.local_peer());
}

#[tokio::test]
async fn without_a_secret_the_network_is_open() {
    let factory = OverTcp::new();
    let mut configs = [factory.config(), factory.config()];
    configs.iter_mut().for_each(|config| config.secret = None);
    let [one, other] = configs;
    let (one, other) = (factory.start(one).await, factory.start(other).await);
    other.serve(Arc::new(Echo));
    assert_eq!(one.dial(other.own_addresses().remove(0), PATIENCE).await.unwrap(), other.local_peer());
    assert_eq!(echo(&one, other.local_peer(), "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn garbage_on_the_swarm_port_does_no_harm() {
    let factory = OverTcp::new();
    let (one, other) = (factory.network().await, factory.network().await);
    other.serve(Arc::new(Echo));
    connect_all(&[as_test_peer(&one), as_test_peer(&other)]).await;
    let garbage: Vec<u8> = (0..60_000_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for length in [0, 1, 23, 24, 25, 100, 60_000] {
        let mut raw = TcpStream::connect(socket_of(&other)).await.unwrap();
        // The peer may close at any time; that is what it should do.
        let _closed = raw.write_all(&garbage[..length]).await;
        let _closed = raw.shutdown().await;
        let mut answer = Vec::new();
        let _closed = tokio::time::timeout(PATIENCE, raw.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 1_000, "an outsider was told {} bytes", answer.len());
        assert_eq!(echo(&one, other.local_peer(), "still there").await.unwrap(), "still there");
    }
    assert_eq!(other.connected(), [one.local_peer()]);
}

#[tokio::test]
async fn a_member_that_sends_garbage_loses_its_stream_and_nothing_else() {
    let factory = OverTcp::new();
    let mut config = factory.config();
    config.secret = None;
    let target = factory.start(config).await;
    target.serve(Arc::new(Echo));
    let mut swarm = raw_swarm(libp2p_stream::Behaviour::new());
    let mut control = swarm.behaviour().new_control();
    swarm.dial(target.own_addresses().remove(0)).unwrap();
    tokio::select! {
        () = async { loop { swarm.select_next_some().await; } } => {}
        () = async {
            until("connected", || !target.connected().is_empty()).await;
            let too_long = [0xff; 40];
            let an_answer = [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1];
            for garbage in [&too_long[..], &an_answer] {
                let mut stream = control.open_stream(target.local_peer(), protocol_of(Purpose::Call)).await.unwrap();
                stream.write_all(garbage).await.unwrap();
                stream.flush().await.unwrap();
                let mut answer = Vec::new();
                // Closed or reset: in any case it ends without an answer.
                let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
                assert!(answer.is_empty());
            }
            let mut stream = control.open_stream(target.local_peer(), protocol_of(Purpose::Call)).await.unwrap();
            stream.write_all(&[0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 5, 0, b'h', b'i']).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 15];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer, [0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 5, 1, b'h', b'i']);
        } => {}
    }
}

/// Nine strangers reserve as much as they can with heads whose bodies never come.
#[tokio::test]
async fn strangers_that_promise_large_calls_take_nothing_from_members() {
    let factory = OverTcp::new();
    let config = || NetworkConfig { secret: None, ..factory.config() };
    let target = factory.start(config()).await;
    target.serve(Arc::new(Echo));
    let address = target.own_addresses().remove(0);
    let (friend, stranger) = (factory.start(config()).await, factory.start(config()).await);
    target.remember(friend.local_peer(), friend.own_addresses());
    stranger.dial(address.clone(), PATIENCE).await.unwrap();
    for caller in [&friend, &stranger] {
        until("connected", || !caller.connected().is_empty()).await;
        // Both have their streams: new ones may be lost when many come at once.
        assert_eq!(echo(caller, target.local_peer(), "hello").await.unwrap(), "hello");
    }
    let mut attacks = tokio::task::JoinSet::new();
    for _ in 0..9 {
        let (address, target) = (address.clone(), target.local_peer());
        attacks.spawn(async move {
            let mut swarm = raw_swarm(libp2p_stream::Behaviour::new());
            let mut control = swarm.behaviour().new_control();
            swarm.dial(address).unwrap();
            let driving = async {
                loop {
                    swarm.select_next_some().await;
                }
            };
            let attacking = async {
                let mut held = Vec::new();
                while held.len() < 7 {
                    let purpose = Purpose::ALL[held.len() % 4];
                    let head = [0, 0x80, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0];
                    // Streams that come faster than they are taken are dropped; the attacker tries again.
                    if let Ok(mut stream) = control.open_stream(target, protocol_of(purpose)).await
                        && stream.write_all(&head).await.is_ok()
                        && stream.flush().await.is_ok()
                    {
                        // One that was taken stays silent.
                        let end = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0])).await;
                        held.extend(end.is_err().then_some(stream));
                    }
                }
                std::future::pending::<()>().await;
            };
            futures::future::join(driving, attacking).await;
        });
    }
    let largest = Bytes::from(vec![b'.'; cluster_core::ports::MAX_MESSAGE]);
    let call = async |from: &Network| from.call(target.local_peer(), Purpose::Call, largest.clone(), PATIENCE).await;
    let overloaded = async { while !matches!(call(&stranger).await, Err(TransportError::Overloaded { .. })) {} };
    tokio::time::timeout(PATIENCE, overloaded).await.expect("the room of strangers is taken");
    assert_eq!(call(&friend).await.unwrap().len(), largest.len());
}

#[tokio::test]
async fn a_flood_of_gossip_is_cut_off_and_others_are_heard() {
    let factory = OverTcp::new();
    let target = factory.start(NetworkConfig { secret: None, ..factory.config() }).await;
    let mut heard = target.subscribe(Topic::Metrics);
    let keys = [(); 2].map(|()| libp2p::identity::Keypair::generate_ed25519());
    let [mut loud, mut quiet] = keys.clone().map(|key| raw_swarm(gossip_as(MessageAuthenticity::Signed(key))));
    let topic = IdentTopic::new("/ipfs-cluster-rs/ipfs-cluster/metrics");
    for swarm in [&mut loud, &mut quiet] {
        swarm.behaviour_mut().subscribe(&topic).unwrap();
        swarm.dial(target.own_addresses().remove(0)).unwrap();
    }
    const LARGE: usize = 50_000;
    const MESSAGES: u32 = 400;
    let flood = async {
        // Many times what a stranger may say, then the other one speaks, until it is heard.
        for number in 0..MESSAGES {
            let mut data = vec![7; LARGE];
            data[..4].copy_from_slice(&number.to_be_bytes());
            // The other one connects meanwhile: who is silent for ten seconds is not let in.
            tokio::select! {
                () = drive_until_published(&mut loud, &topic, &data) => {}
                () = drive(&mut quiet) => {}
            }
        }
        for number in 0_u32.. {
            let _quiet = tokio::time::timeout(Duration::from_millis(20), loud.select_next_some()).await;
            drive_until_published(&mut quiet, &topic, &number.to_be_bytes()).await;
        }
    };
    let hearing = async {
        let (mut bytes, mut others) = (0, 0);
        while others == 0 {
            let message = heard.recv().await.unwrap();
            if message.from == keys[0].public().to_peer_id() { bytes += message.data.len() } else { others += 1 }
        }
        bytes
    };
    let bytes = tokio::select! {
        () = flood => unreachable!("it goes on until the other is heard"),
        bytes = tokio::time::timeout(2 * PATIENCE, hearing) => bytes.unwrap(),
    };
    assert!((LARGE..200 * LARGE).contains(&bytes), "{bytes} bytes of {MESSAGES} messages came through");
}

#[tokio::test]
async fn a_forged_or_unsigned_message_is_dropped() {
    let factory = OverTcp::new();
    let mut config = factory.config();
    config.secret = None;
    let target = factory.start(config).await;
    let victim = PeerId::random();
    let honest = libp2p::identity::Keypair::generate_ed25519();
    let mut heard = target.subscribe(Topic::Metrics);
    // Two strangers: one claims to be the victim and does not sign; the other is honest, and speaks last.
    let mut forger = raw_swarm(gossip_as(MessageAuthenticity::Author(victim)));
    let mut signer = raw_swarm(gossip_as(MessageAuthenticity::Signed(honest.clone())));
    let topic = IdentTopic::new("/ipfs-cluster-rs/ipfs-cluster/metrics");
    for swarm in [&mut forger, &mut signer] {
        swarm.behaviour_mut().subscribe(&topic).unwrap();
        swarm.dial(target.own_addresses().remove(0)).unwrap();
    }
    for _ in 0..10 {
        let forged = drive_until_published(&mut forger, &topic, b"forged");
        tokio::time::timeout(PATIENCE, forged).await.unwrap();
    }
    let signed = drive_until_published(&mut signer, &topic, b"signed");
    tokio::time::timeout(PATIENCE, signed).await.unwrap();
    tokio::select! {
        () = drive(&mut forger) => {}
        () = drive(&mut signer) => {}
        message = tokio::time::timeout(PATIENCE, heard.recv()) => {
            let message = message.unwrap().unwrap();
            assert_eq!(message.data, "signed");
            assert_eq!(message.from, honest.public().to_peer_id());
        }
    }
    assert!(heard.try_recv().is_err(), "the forged message got through");
}

/// Has a swarm do what it has to, for as long as somebody waits for something else.
async fn drive(swarm: &mut Swarm<gossipsub::Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}

async fn drive_until_published(swarm: &mut Swarm<gossipsub::Behaviour>, topic: &IdentTopic, data: &[u8]) {
    loop {
        // Events wake it; so does the heartbeat, in case none comes any more.
        let _quiet = tokio::time::timeout(Duration::from_millis(20), swarm.select_next_some()).await;
        if swarm.behaviour_mut().publish(topic.clone(), data).is_ok() {
            return;
        }
    }
}

fn gossip_as(author: MessageAuthenticity) -> gossipsub::Behaviour {
    let config = gossipsub::ConfigBuilder::default().validation_mode(ValidationMode::None).build().unwrap();
    gossipsub::Behaviour::new(author, config).unwrap()
}

/// A libp2p node without any of our code, and without a pre-shared key.
fn raw_swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

#[tokio::test]
async fn a_handler_that_panics_answers_at_once_and_the_stream_goes_on() {
    let factory = OverTcp::new();
    let (one, other) = (factory.network().await, factory.network().await);
    other.serve(Arc::new(Echo));
    connect_all(&[as_test_peer(&one), as_test_peer(&other)]).await;
    let error = echo(&one, other.local_peer(), "panic").await.unwrap_err();
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    assert_eq!(echo(&one, other.local_peer(), "and on").await.unwrap(), "and on");
}

#[tokio::test]
async fn a_peer_that_restarts_is_reached_again_through_the_peerstore() {
    let factory = OverTcp::new();
    let folder = tempfile::tempdir().unwrap();
    let peerstore: PathBuf = folder.path().join("peerstore");
    let other = factory.network().await;
    other.serve(Arc::new(Echo));
    let mut config = factory.config();
    config.peerstore = Some(peerstore.clone());
    let one = factory.start(config.clone()).await;
    one.remember(other.local_peer(), other.own_addresses());
    assert_eq!(echo(&one, other.local_peer(), "before").await.unwrap(), "before");
    until("the peerstore is written", || peerstore.exists()).await;
    one.stop().await;
    assert!(echo(&one, other.local_peer(), "after the end").await.is_err());
    until("the other has seen it go", || other.connected().is_empty()).await;
    let text = std::fs::read_to_string(&peerstore).unwrap();
    assert_eq!(text, format!("{}\n", other.own_addresses()[0]));

    let again = factory.start(config).await;
    until("connected without being told", || again.connected() == [other.local_peer()]).await;
    assert_eq!(echo(&again, other.local_peer(), "again").await.unwrap(), "again");

    again.forget(other.local_peer());
    let forgotten = || std::fs::read_to_string(&peerstore).is_ok_and(|text| text.is_empty());
    until("the forgotten peer is gone from the file", forgotten).await;
}

#[tokio::test]
async fn a_remembered_peer_that_comes_back_is_connected_again() {
    let factory = OverTcp::new();
    let one = factory.network().await;
    let mut config = factory.config();
    let other = factory.start(config.clone()).await;
    other.serve(Arc::new(Echo));
    one.remember(other.local_peer(), other.own_addresses());
    assert!(echo(&one, other.local_peer(), "before").await.is_ok());
    config.listen = other.own_addresses().into_iter().map(without_peer).collect();
    other.stop().await;
    until("it is seen to be gone", || one.connected().is_empty()).await;
    let again = factory.start(config).await;
    again.serve(Arc::new(Echo));
    until("it is connected again", || one.connected() == [again.local_peer()]).await;
    assert_eq!(echo(&one, again.local_peer(), "after").await.unwrap(), "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_peers_are_trimmed_and_remembered_ones_stay() {
    let factory = OverTcp::new();
    let trim = TrimRule { high_water: 4, low_water: 2, grace_period: Duration::from_secs(3) };
    let hub = factory.start(NetworkConfig { trim, ..factory.config() }).await;
    let address = hub.own_addresses().remove(0);
    let mut guests = Vec::new();
    for number in 0..5 {
        let guest = factory.network().await;
        if number == 4 {
            hub.remember(guest.local_peer(), guest.own_addresses());
        }
        guest.dial(address.clone(), PATIENCE).await.unwrap();
        guests.push(guest);
    }
    until("the low water", || hub.connected().len() == 2).await;
    assert!(hub.connected().contains(&guests[4].local_peer()), "the newest is remembered");
    // Which of the others stays depends on who was within the grace period at that moment: `swarm/trim.rs` has the rule.
}

/// The dial of the address book meets one that was asked for by address. When that one fails, the book must hear of it,
/// and so must whoever waits for the connection.
#[tokio::test]
async fn a_dial_by_address_that_fails_does_not_end_the_search_for_a_member() {
    let factory = OverTcp::new();
    let mut config = factory.config();
    config.dial_timeout = Duration::from_secs(1);
    let one = factory.start(config).await;
    let black_hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = factory.config();
    let member = config.identity.peer();
    let silent = format!("/ip4/127.0.0.1/tcp/{}/p2p/{member}", black_hole.local_addr().unwrap().port());
    let dial = one.dial(silent.parse().unwrap(), PATIENCE);
    let meet = async {
        // It is accepted, so the dial is under way; nothing answers.
        let silence = black_hole.accept().await.unwrap();
        one.remember(member, vec![factory.dead.clone()]);
        let failed = echo(&one, member, "is anybody there?").await;
        assert!(matches!(failed, Err(TransportError::NotSent { .. })), "{failed:?}");
        drop(silence);
    };
    let (dialled, ()) = futures::join!(dial, tokio::time::timeout(PATIENCE, meet).map(Result::unwrap));
    assert!(matches!(dialled, Err(TransportError::Unreachable { .. })), "{dialled:?}");
    config.listen = vec![factory.dead.clone()];
    let other = factory.start(config).await;
    until("the member is found", || one.connected() == [other.local_peer()]).await;
}

#[tokio::test]
async fn a_call_that_breaks_after_it_was_sent_is_not_called_unsent() {
    struct Silent(tokio::sync::Notify);
    #[async_trait]
    impl CallHandler for Silent {
        async fn handle(&self, _from: PeerId, _purpose: Purpose, _body: Bytes) -> Bytes {
            self.0.notify_one();
            std::future::pending().await
        }
    }
    let factory = OverTcp::new();
    let (one, other) = (factory.network().await, factory.network().await);
    let handler = Arc::new(Silent(tokio::sync::Notify::new()));
    other.serve(Arc::clone(&handler) as Arc<dyn CallHandler>);
    connect_all(&[as_test_peer(&one), as_test_peer(&other)]).await;
    let stop = async {
        handler.0.notified().await;
        other.stop().await;
    };
    let (outcome, ()) = futures::join!(echo(&one, other.local_peer(), "hello"), stop);
    assert!(matches!(outcome, Err(TransportError::Broken { .. })), "{outcome:?}");
}

#[tokio::test]
async fn what_goes_between_peers_is_counted_by_protocol() {
    let factory = OverTcp::new();
    let (one, other) = (factory.network().await, factory.network().await);
    other.serve(Arc::new(Echo));
    connect_all(&[as_test_peer(&one), as_test_peer(&other)]).await;
    let of = |network: &Network| network.bandwidth().unwrap().get(protocol_of(Purpose::Call).as_ref()).copied();
    assert!(of(&one).is_none_or(|counted| counted.total_out < 100_000));
    let body = Bytes::from(vec![b'x'; 100_000]);
    let answer = one.call(other.local_peer(), Purpose::Call, body.clone(), PATIENCE).await.unwrap();
    assert_eq!(answer, body);
    for network in [&one, &other] {
        // What this test sent, once in each direction, and little more.
        let counted = of(network).unwrap();
        for total in [counted.total_in, counted.total_out] {
            assert!((100_000..110_000).contains(&total), "{counted:?}");
        }
        assert!(counted.rate_in > 0.0 && counted.rate_out > 0.0, "{counted:?}");
    }
    let protocols = one.bandwidth().unwrap();
    assert!(protocols.keys().any(|name| name.starts_with("/ipfs/id/")), "{protocols:?}");
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_names_the_address() {
    let factory = OverTcp::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = factory.network().await;
    for socket in [taken.local_addr().unwrap(), socket_of(&first)] {
        let mut config = factory.config();
        config.listen = vec![format!("/ip4/127.0.0.1/tcp/{}", socket.port()).parse().unwrap()];
        let error = Network::start(config, &factory.tasks).await.unwrap_err();
        assert!(matches!(error, NetError::Listen { .. }), "{error:?}");
        assert!(error.to_string().contains(&socket.port().to_string()), "{error}");
    }
}

#[tokio::test]
async fn announced_addresses_replace_those_listened_on() {
    let factory = OverTcp::new();
    let mut config = factory.config();
    config.announce = vec!["/dns4/peer.example/tcp/9096".parse().unwrap()];
    let announcing = factory.start(config).await;
    let expected: Multiaddr = format!("/dns4/peer.example/tcp/9096/p2p/{}", announcing.local_peer()).parse().unwrap();
    assert_eq!(announcing.own_addresses(), [expected]);
    let mut config = factory.config();
    config.no_announce = vec!["/ip4/127.0.0.0/ipcidr/8".parse().unwrap()];
    assert!(factory.start(config).await.own_addresses().is_empty());
}

#[tokio::test]
async fn identify_tells_where_a_peer_that_dialled_in_can_be_reached() {
    let factory = OverTcp::new();
    let (one, other) = (factory.network().await, factory.network().await);
    one.remember(other.local_peer(), other.own_addresses());
    let expected: Vec<Multiaddr> = one.own_addresses().into_iter().map(without_peer).collect();
    until("identify has told", || other.addresses_of(&one.local_peer()) == expected).await;
}

#[test]
fn identity_files_of_the_original_are_read_and_written_back_unchanged() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = tempfile::tempdir().unwrap();
    for name in ["identity-ed25519.json", "identity-rsa.json"] {
        let identity = Identity::load(&golden.join(name)).unwrap();
        let copy = folder.path().join(name);
        identity.save(&copy).unwrap();
        let read = |path: &Path| {
            let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            value
        };
        assert_eq!(read(&copy), read(&golden.join(name)));
        assert_eq!(read(&copy)["id"], identity.peer().to_string());
    }
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    address.pop();
    address
}
