//! The protocols a peer speaks on every connection.

use std::time::Duration;

use cluster_core::ports::Topic;
use cluster_types::{BoxError, PeerId, VERSION};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{identify, mdns, ping};

use crate::config::NetworkConfig;
use crate::http::Door;

/// The protocol family identify names.
const PROTOCOL_FAMILY: &str = "/ipfs-cluster-rs/1";
/// Connections whose handshake is not finished; a stranger without the secret gets no further.
const MAX_PENDING: u32 = 256;
/// Connections with one peer: both may dial at the same time, and an old one may still be dying.
const MAX_PER_PEER: u32 = 4;
/// A silent connection is probed this often, and closed when this long nothing comes back. What was sent into a cut is
/// repeated by TCP ever more rarely: a new connection is there sooner than an old one comes to life again.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a message is remembered at least, so that it is not delivered twice: the contract says a minute.
const LEAST_SEEN_TTL: Duration = Duration::from_secs(60);
/// Messages that may wait to be sent to one peer; more of them are lost.
const SEND_QUEUE: usize = 256;
/// What signature, key and topic add to a message.
const ENVELOPE: usize = 16 * 1024;
/// How long records of the local network are believed, at least.
const MDNS_TTL: Duration = Duration::from_secs(6 * 60);

/// The protocols together.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) streams: libp2p_stream::Behaviour,
    pub(crate) http: Door,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, (&'static str, BoxError)> {
        let keypair = config.identity.keypair();
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING))
            .with_max_pending_outgoing(Some(MAX_PENDING))
            .with_max_established(Some(config.max_connections))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        // Addresses are announced one by one (see `announced`), not simply all that are listened on.
        let identify = identify::Config::new(PROTOCOL_FAMILY.to_owned(), keypair.public())
            .with_agent_version(format!("ipfs-cluster-rs/{VERSION}"))
            .with_hide_listen_addrs(true)
            .with_push_listen_addr_updates(true);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            streams: libp2p_stream::Behaviour::new(),
            http: Door::default(),
            gossip: gossip(config).map_err(|cause| ("gossip", cause))?,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
            mdns: mdns(config, config.identity.peer()).map_err(|cause| ("discovery on the local network", cause))?,
        })
    }
}

/// The name of a topic on the wire.
pub(crate) fn topic_name(cluster_name: &str, topic: Topic) -> IdentTopic {
    IdentTopic::new(format!("/ipfs-cluster-rs/{cluster_name}/{}", topic.as_str()))
}

fn gossip(config: &NetworkConfig) -> Result<gossipsub::Behaviour, BoxError> {
    let largest = Topic::ALL.map(Topic::max_message).into_iter().max().unwrap_or_default();
    let mut settings = gossipsub::ConfigBuilder::default();
    settings
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(largest + ENVELOPE)
        .connection_handler_queue_len(SEND_QUEUE)
        .duplicate_cache_time(config.gossip.seen_messages_ttl.max(LEAST_SEEN_TTL))
        .heartbeat_interval(config.gossip.heartbeat_interval)
        .history_gossip(config.gossip.history_gossip)
        .history_length(config.gossip.history_length)
        .flood_publish(config.gossip.flood_publish)
        .heartbeat_initial_delay(Duration::from_millis(200));
    set_degrees(&mut settings, config.gossip.degree_factor);
    for topic in Topic::ALL {
        let name = topic_name(&config.cluster_name, topic).hash();
        settings.max_transmit_size_for_topic(topic.max_message() + ENVELOPE, name);
    }
    let authenticity = MessageAuthenticity::Signed(config.identity.keypair().clone());
    let mut gossip = gossipsub::Behaviour::new(authenticity, settings.build()?)?;
    for topic in Topic::ALL {
        gossip.subscribe(&topic_name(&config.cluster_name, topic))?;
    }
    Ok(gossip)
}

/// The sizes of the mesh, in the proportions of the original.
fn set_degrees(settings: &mut gossipsub::ConfigBuilder, factor: usize) {
    let times = |count: usize| factor.saturating_mul(count);
    settings
        .mesh_n(times(6))
        .mesh_n_low(times(5))
        .mesh_n_high(times(12))
        .mesh_outbound_min(times(2))
        .gossip_lazy(times(6))
        .retain_scores(times(4));
}

fn mdns(config: &NetworkConfig, local: PeerId) -> Result<Toggle<mdns::tokio::Behaviour>, BoxError> {
    if config.mdns_interval.is_zero() {
        return Ok(Toggle::from(None));
    }
    let settings = mdns::Config {
        ttl: MDNS_TTL.max(config.mdns_interval.saturating_mul(3)),
        query_interval: config.mdns_interval,
        enable_ipv6: false,
    };
    Ok(Toggle::from(Some(mdns::tokio::Behaviour::new(settings, local)?)))
}
