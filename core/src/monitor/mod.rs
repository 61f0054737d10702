//! What the peers tell each other about themselves, and who has fallen silent.
//!
//! [`Monitor`] publishes this peer's metrics, keeps the newest of everyone's, and derives alerts and suspects from
//! their expiry. Its tasks share one [`window`](window::Window) behind a lock that is never held across an await.
//!
//! **Invariant:** a metric is believed only of its signer, and only within limits; what is dropped is counted.
//! Deliberately not here: what to do about a silent peer (`cluster::repin`).

mod informer;
mod informers;
mod ping;
mod snapshot;
mod swarm_connect;
mod window;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::watch;
use cluster_types::{Alert, BoxError, IpfsId, Metric, PeerId, PingValue};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::consensus::Position;
use crate::ports::{Clock, Gossip, GossipMessage, IpfsNode, Topic};
use crate::task::{OnExit, TaskGroup};
use ping::{OwnPing, PingInformer};
use window::{News, Now, Window};
use wire::Rejected;

pub use informer::{Informer, Reading};
pub(crate) use informers::REPO_SIZE;
pub use informers::{DiskInformer, DiskMetric, QueueInformer, TagsInformer};
pub use snapshot::MetricsSnapshot;

/// When the monitor does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// How often this peer says that it is alive; its ping is valid twice as long.
    pub ping_interval: Duration,
    /// How often expired metrics are looked for.
    pub check_interval: Duration,
    /// How often the IPFS nodes of the members are connected again; `None`: never.
    pub connect_swarms: Option<Duration>,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(15),
            check_interval: Duration::from_secs(15),
            connect_swarms: Some(Duration::from_secs(30)),
        }
    }
}

/// What was dropped, for telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorCounts {
    /// Messages that could not be read or broke a limit.
    pub malformed: u64,
    /// Messages that spoke of another peer than their signer.
    pub foreign: u64,
    /// Metrics for which there was no room.
    pub refused: u64,
    /// Messages lost because they came faster than they were read.
    pub missed: u64,
    /// Alerts raised.
    pub alerts: u64,
}

/// What is known of the peers.
pub struct Monitor {
    local: PeerId,
    config: MonitorConfig,
    gossip: Arc<dyn Gossip>,
    clock: Arc<dyn Clock>,
    window: Mutex<Window>,
    own: OwnPing,
    announce: watch::Sender<u64>,
    heard: watch::Sender<u64>,
    suspects: watch::Sender<BTreeSet<PeerId>>,
    counts: Counters,
}

#[derive(Default)]
struct Counters {
    malformed: AtomicU64,
    foreign: AtomicU64,
    refused: AtomicU64,
    missed: AtomicU64,
    alerts: AtomicU64,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("local", &self.local).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Starts to publish and to listen.
    #[expect(clippy::too_many_arguments, reason = "the ports come one by one from the composition root")]
    pub fn start(
        config: MonitorConfig,
        gossip: Arc<dyn Gossip>,
        clock: Arc<dyn Clock>,
        local: PeerId,
        peer_name: String,
        informers: Vec<Box<dyn Informer>>,
        node: Arc<dyn IpfsNode>,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let monitor = Arc::new(Self {
            local,
            window: Mutex::new(Window::new(local)),
            own: Arc::new(Mutex::new(PingValue { peer_name, ..PingValue::default() })),
            announce: watch::Sender::new(0),
            heard: watch::Sender::new(0),
            suspects: watch::Sender::new(BTreeSet::new()),
            counts: Counters::default(),
            config,
            gossip,
            clock,
        });
        let messages = monitor.gossip.subscribe(Topic::Metrics);
        monitor.spawn_listener(messages, tasks);
        monitor.spawn_check(tasks);
        monitor.spawn_node_tasks(&node, tasks);
        let ping = PingInformer { own: Arc::clone(&monitor.own), interval: monitor.config.ping_interval };
        monitor.spawn_informer(Box::new(ping), tasks);
        for informer in informers {
            monitor.spawn_informer(informer, tasks);
        }
        monitor
    }

    /// From now on, only members raise alerts and suspicion and have their IPFS nodes connected; and a member that was
    /// never heard is suspect as well.
    pub fn follow_members(self: &Arc<Self>, mut position: watch::Receiver<Position>, tasks: &TaskGroup) {
        let (monitor, stop) = (Arc::clone(self), tasks.stop_token());
        tasks.spawn("monitor members", OnExit::StopPeer, async move {
            loop {
                let members = position.borrow_and_update().members.iter().map(|member| member.peer).collect();
                monitor.window.lock().set_members(&members, Instant::now());
                monitor.heard.send_modify(|times| *times = times.wrapping_add(1));
                monitor.refresh_suspects();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    changed = next_membership(&mut position, &members) => {
                        changed.map_err(|_gone| BoxError::from("the membership is told no more"))?;
                    }
                }
            }
        });
    }

    /// Asks every informer to publish soon: someone may be listening who has not heard of us. Cheap, and limited to
    /// once in two seconds.
    pub fn announce(&self) {
        self.announce.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// The usable metrics of a name: the newest of each peer, sorted by peer.
    pub fn metrics(&self, name: &str) -> Vec<Metric> {
        self.window.lock().metrics(name, self.now())
    }

    /// Every name that was heard, sorted.
    pub fn metric_names(&self) -> Vec<String> {
        self.window.lock().names()
    }

    /// Metrics that expired and were not renewed, newest first, at most a thousand.
    pub fn alerts(&self) -> Vec<Alert> {
        self.window.lock().alerts()
    }

    /// The usable metrics of some names at this instant; the pings are always among them.
    pub fn snapshot(&self, names: &[String]) -> MetricsSnapshot {
        let mut names = names.to_vec();
        if !names.iter().any(|name| name == Metric::PING) {
            names.push(Metric::PING.to_owned());
        }
        self.window.lock().snapshot(&names, self.now())
    }

    /// The members whose ping expired, always up to date within a check interval.
    pub fn suspects(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.suspects.subscribe()
    }

    /// What a peer last said of itself, also when it has fallen silent.
    pub fn ping_value(&self, peer: &PeerId) -> Option<PingValue> {
        if *peer == self.local {
            return Some(self.own.lock().clone());
        }
        self.window.lock().ping_value(peer)
    }

    /// The last good answer of this peer's IPFS node to who it is; nothing before the first one.
    pub fn ipfs_id(&self) -> Option<IpfsId> {
        let own = self.own.lock();
        (!own.ipfs_id.is_empty()).then(|| IpfsId {
            id: own.ipfs_id.clone(),
            addresses: own.ipfs_addresses.clone(),
            error: String::new(),
        })
    }

    /// What was dropped so far.
    pub fn counts(&self) -> MonitorCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MonitorCounts {
            malformed: read(&self.counts.malformed),
            foreign: read(&self.counts.foreign),
            refused: read(&self.counts.refused),
            missed: read(&self.counts.missed),
            alerts: read(&self.counts.alerts),
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), instant: Instant::now() }
    }

    fn nodes(&self) -> BTreeMap<PeerId, PingValue> {
        self.window.lock().nodes(self.now())
    }

    /// Keeps readings as this peer's own and tells the others.
    async fn publish(&self, readings: Vec<Reading>, ttl: Duration) -> Result<(), BoxError> {
        if readings.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let expire = now.saturating_add(ttl).unix_nanos();
        let metric = |reading: Reading| Metric {
            name: reading.name,
            peer: self.local,
            value: reading.value,
            expire,
            valid: true,
            weight: reading.weight,
            partitionable: reading.partitionable,
            received_at: now.unix_nanos(),
        };
        let metrics: Vec<Metric> = readings.into_iter().map(metric).collect();
        for metric in &metrics {
            self.keep(metric.clone());
        }
        self.gossip.publish(Topic::Metrics, wire::encode(&metrics, ttl)?).await?;
        Ok(())
    }

    /// Keeps one metric; says what was new about its peer.
    fn keep(&self, metric: Metric) -> News {
        let name_of_full = metric.name.clone();
        let kept = self.window.lock().record(metric, self.now());
        kept.unwrap_or_else(|_full| {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(name = name_of_full, "no room for a metric");
            News::default()
        })
    }

    fn receive(&self, message: &GossipMessage) {
        match wire::decode(&message.data, message.from, self.clock.now()) {
            // Others' word about this peer is worth nothing, even if it were signed with its key.
            Ok(_) if message.from == self.local => {}
            Ok(metrics) => {
                let mut news = News::default();
                for metric in metrics {
                    let told = self.keep(metric);
                    news.sign_of_life |= told.sign_of_life;
                    news.node_changed |= told.node_changed;
                }
                self.react(message.from, news);
            }
            Err(Rejected::Malformed) => {
                self.counts.malformed.fetch_add(1, Ordering::Relaxed);
            }
            Err(Rejected::Foreign) => {
                self.counts.foreign.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn react(&self, peer: PeerId, news: News) {
        if news.sign_of_life {
            tracing::debug!(peer = %peer, "a peer is heard");
            self.refresh_suspects();
            self.announce();
        }
        if news.sign_of_life || news.node_changed {
            self.heard.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    fn check(&self) {
        let alerts = self.window.lock().check(self.now());
        self.counts.alerts.fetch_add(u64::try_from(alerts.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        for alert in alerts {
            tracing::info!(peer = %alert.metric.peer, metric = alert.metric.name, "metric expired");
        }
        self.refresh_suspects();
    }

    fn refresh_suspects(&self) {
        let patience = self.config.ping_interval * 2;
        self.suspects.send_if_modified(|before| {
            let suspects = self.window.lock().suspects(self.now(), patience);
            let changed = *before != suspects;
            *before = suspects;
            changed
        });
    }

    fn spawn_listener(self: &Arc<Self>, mut messages: broadcast::Receiver<GossipMessage>, tasks: &TaskGroup) {
        let (monitor, stop) = (Arc::clone(self), tasks.stop_token());
        tasks.spawn("monitor", OnExit::StopPeer, async move {
            loop {
                let received = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    received = messages.recv() => received,
                };
                match received {
                    Ok(message) => monitor.receive(&message),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        monitor.counts.missed.fetch_add(missed, Ordering::Relaxed);
                    }
                    Err(broadcast::error::RecvError::Closed) => return Err(BoxError::from("gossip has ended")),
                }
            }
        });
    }

    fn spawn_check(self: &Arc<Self>, tasks: &TaskGroup) {
        let (monitor, stop) = (Arc::clone(self), tasks.stop_token());
        tasks.spawn("monitor check", OnExit::StopPeer, async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    () = tokio::time::sleep(monitor.config.check_interval) => monitor.check(),
                }
            }
        });
    }

    fn spawn_node_tasks(self: &Arc<Self>, node: &Arc<dyn IpfsNode>, tasks: &TaskGroup) {
        let (monitor, asked, stop) = (Arc::clone(self), Arc::clone(node), tasks.stop_token());
        tasks.spawn("node identity", OnExit::StopPeer, async move {
            ping::watch_node(&monitor, asked.as_ref(), monitor.config.ping_interval, stop).await;
            Ok::<(), BoxError>(())
        });
        let Some(period) = self.config.connect_swarms else { return };
        let (monitor, node, stop) = (Arc::clone(self), Arc::clone(node), tasks.stop_token());
        let heard = self.heard.subscribe();
        tasks.spawn("swarm connect", OnExit::StopPeer, async move {
            swarm_connect::keep_connected(&monitor, node.as_ref(), period, heard, stop).await;
            Ok::<(), BoxError>(())
        });
    }

    fn spawn_informer(self: &Arc<Self>, informer: Box<dyn Informer>, tasks: &TaskGroup) {
        let (monitor, stop) = (Arc::clone(self), tasks.stop_token());
        let announce = self.announce.subscribe();
        tasks.spawn("informer", OnExit::StopPeer, async move {
            informer::publish_regularly(&monitor, informer.as_ref(), announce, stop).await;
            Ok::<(), BoxError>(())
        });
    }
}

/// Returns when the members are others than `known`.
async fn next_membership(
    position: &mut watch::Receiver<Position>,
    known: &BTreeSet<PeerId>,
) -> Result<(), watch::Gone> {
    let differs = |position: &Position| {
        position.members.len() != known.len() || position.members.iter().any(|member| !known.contains(&member.peer))
    };
    position.wait_for(differs).await.map(drop)
}

#[cfg(test)]
mod tests;
