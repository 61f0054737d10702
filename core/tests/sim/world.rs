//! A cluster in one thread: the network, the hosts, and what the rules of the log have seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::consensus::Consensus;
use cluster_core::task::{OnExit, TaskGroup};
use cluster_core::testing::mem_ipfs::{MemIpfs, MemIpfsWorld};
use cluster_core::testing::{Crash, MemNet};
use cluster_types::{BoxError, PeerId, Role};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::host::{Host, Mode, Numbers, Running, Shared, bury};
use crate::ledger::Ledger;
use crate::log_rules::LogRules;
use crate::trace::Trace;

/// How long the cluster may take to come together.
const FORM_LIMIT: Duration = Duration::from_secs(60);
/// Messages take at most so long while nothing is disturbed.
const USUAL_DELAY: Duration = Duration::from_millis(5);

/// Everything of one run.
pub(crate) struct World {
    pub(crate) net: MemNet,
    pub(crate) trace: Arc<Trace>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) tasks: TaskGroup,
    pub(crate) mode: Mode,
    pub(crate) log: Arc<LogRules>,
    pub(crate) ledger: Arc<Ledger>,
    /// Peers that are away for long: what heals and restarts passes them by.
    pub(crate) away: Mutex<BTreeSet<usize>>,
}

impl World {
    /// Peers that were never started, drawn from `chance`.
    pub(crate) fn new(trace: &Arc<Trace>, chance: &mut StdRng) -> Self {
        let mode = Mode::draw(chance);
        trace.note("mode", &[], format!("{mode:?}"), &[]);
        let count = [3, 3, 4, 5][chance.random_range(0..4)];
        let net = MemNet::new(chance.random());
        let peers: Vec<PeerId> = (0..count).map(|_| peer_id(chance)).collect();
        let numbers: Arc<Numbers> = Arc::new(peers.iter().copied().zip(0..).collect());
        let log = Arc::new(LogRules::new(Arc::clone(trace)));
        let ledger = Arc::new(Ledger::new(Arc::clone(trace), peers.clone()));
        let (rules, of_states) = (Arc::clone(&log), Arc::clone(&ledger));
        let shared = Shared {
            net: net.clone(),
            trace: Arc::clone(trace),
            numbers: Arc::clone(&numbers),
            on_log: Arc::new(move |host, event| rules.take(host, event)),
            on_state: Arc::new(move |host, event| of_states.take(host, event)),
            mode: mode.clone(),
        };
        let nodes = MemIpfsWorld::default();
        let host = |(number, peer): (usize, &PeerId)| {
            let ipfs = MemIpfs::in_world(&nodes, Duration::from_secs(5));
            ipfs.find_everything();
            // Its place in the network has an address from now on.
            drop(net.peer(*peer));
            Host::new(&shared, number, *peer, ipfs, StdRng::from_rng(chance))
        };
        let hosts = peers.iter().enumerate().map(host).collect();
        let (trace, tasks, away) = (Arc::clone(trace), TaskGroup::new(), Mutex::default());
        Self { net, trace, hosts, numbers, tasks, mode, log, ledger, away }
    }

    /// Founds the cluster and waits until all have joined and all who should vote do.
    pub(crate) async fn form(&self) -> Result<(), String> {
        self.calm();
        let founder = [self.hosts[0].peer];
        let voters = self.hosts.len() - usize::from(self.hosts.len().is_multiple_of(2));
        let formed = async {
            for host in &self.hosts {
                let bootstrap = if host.number == 0 { &[][..] } else { &founder[..] };
                host.start(bootstrap).await.map_err(|error| format!("host {} cannot start: {error}", host.number))?;
            }
            for running in self.hosts.iter().filter_map(Host::running) {
                let mut position = running.consensus.position();
                let all_vote = position.wait_for(|position| {
                    position.members.len() == self.hosts.len()
                        && position.members.iter().filter(|member| member.voter).count() == voters
                });
                all_vote.await.map_err(|gone| gone.to_string())?;
            }
            Ok(())
        };
        tokio::time::timeout(FORM_LIMIT, formed).await.unwrap_or_else(|_| Err("the cluster does not form".to_owned()))
    }

    /// Mends every link but those of peers that are away.
    pub(crate) fn heal(&self) {
        self.net.heal_all();
        for away in self.away.lock().iter() {
            self.net.isolate(self.hosts[*away].peer);
        }
    }

    /// Takes every disturbance of network and nodes away.
    pub(crate) fn calm(&self) {
        self.heal();
        self.net.set_gossip_loss(0.0);
        self.net.set_delay(Duration::ZERO..USUAL_DELAY);
        self.net.set_break_rate(0.0);
        self.net.set_repeat_rate(0.0);
        for host in &self.hosts {
            host.ipfs.mend();
        }
    }

    /// Ends a peer without warning, if it runs.
    pub(crate) fn crash(&self, number: usize, crash: Crash) {
        let Some(running) = self.hosts[number].crash(crash) else { return };
        self.ledger.fell_back(number, &self.hosts[number].disks().state.contents(false));
        let trace = Arc::clone(&self.trace);
        self.tasks.spawn("bury", OnExit::Continue, async move {
            bury(running, &trace).await;
            Ok::<(), BoxError>(())
        });
    }

    /// Starts a peer again on its disks, unless it runs.
    pub(crate) async fn restart(&self, number: usize) {
        let host = &self.hosts[number];
        if host.running().is_some() || self.away.lock().contains(&number) {
            return;
        }
        match tokio::time::timeout(FORM_LIMIT, host.start(&[])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.trace.fail(format!("host {number} cannot start again: {error}")),
            Err(_) => self.trace.fail(format!("host {number} does not start again in time")),
        }
    }

    /// The peer that takes itself for the leader, in the latest term.
    pub(crate) fn leader(&self) -> Option<(usize, Running)> {
        let leads = |host: &Host| {
            let running = host.running()?;
            let (role, term) = {
                let position = running.consensus.position();
                let position = position.borrow();
                (position.role, position.term)
            };
            (role == Role::Leader).then_some((term, host.number, running))
        };
        let latest = self.hosts.iter().filter_map(leads).max_by_key(|(term, number, _)| (*term, *number));
        latest.map(|(_, number, running)| (number, running))
    }
}

/// A peer id out of chance: an identity hash of random bytes.
fn peer_id(chance: &mut StdRng) -> PeerId {
    let mut bytes = [0; 34];
    chance.fill_bytes(&mut bytes[2..]);
    bytes[1] = 32;
    PeerId::from_bytes(&bytes).expect("an identity multihash of 32 bytes is a peer id")
}
