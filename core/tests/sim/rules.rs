//! What must be true of all hosts after every step.
//!
//! The invariants of the contract and where each is judged; "step" is after every step, "write" with every write to a
//! disk, "answer" when a client is answered, "end" after the healing, for what only a whole history can tell.
//!
//! | | Invariant | Judged by |
//! |---|---|---|
//! | INV1 | what was acknowledged is not lost | `check_commitment`, `check_kept` (step, on what a power cut would leave); `Judge::check_committed` (step: it is in its entry); `Judge::check_merged`, `Judge::check_events` (end) |
//! | INV2 | every record was asked for, once | `Ledger::check_asked` (step); `Judge::check_once` (step) |
//! | INV3 | linearizable by CID; without a quorum: by causes | `Judge::replay` over the log (step); `linear::check` over what clients were told (end) |
//! | INV4 | what failed never appears, unknown outcomes may | `Ledger::check_asked` (step); `linear::check` (end) |
//! | INV5 | reads go forward, own writes are seen | `check_progress` (step); `check_applied` and `returned` (answer); `Ledger::put` (write) |
//! | INV6 | what is listed is the state at its index | `check_log`: the log replayed up to every index that a host was seen at; `WaitingRules`: what is shown over it (both step) |
//! | INV7 | same index, same state: records, merge histories, remembered merges; not yet the outcomes of requests | `check_digest` (step) |
//! | INV8 | a state out of shards is that of the log | `check_digest` (step: also of hosts that caught up by shards, against those that applied the log; sums against records) |
//! | INV9 | merges in any order and grouping, repeated | `merged_apart` (step, on what waits); `crdt::merge::model` (10,000 histories); `Judge::compare` (step) |

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::consensus::Consensus;
use cluster_core::consensus::digest::shard_of;
use cluster_core::consensus::log::{AppliedPosition, LogId};
use cluster_core::ports::ShardSum;
use cluster_core::testing::mem_state::Contents;
use cluster_types::{PeerId, Pin, ReplicationFactor, Role, TrackerStatus};

use crate::causal::{Judge, Names};
use crate::host::{Disks, Host};
use crate::ledger::name;
use crate::waiting_rules::WaitingRules;
use crate::world::World;

/// What was seen in earlier steps.
#[derive(Default)]
pub(crate) struct Rules {
    /// Who took itself for the leader of a term.
    leaders: BTreeMap<u64, usize>,
    /// Term and digest at an applied index.
    digests: BTreeMap<u64, (u64, [u8; 32])>,
    /// The index each running host had applied, with the start it belongs to.
    applied: BTreeMap<usize, (usize, u64)>,
    /// The term each disk has promised.
    terms: BTreeMap<usize, u64>,
    waiting: WaitingRules,
    /// Index and term of the last entry that any host was seen to have applied.
    last: (u64, u64),
    /// The names of the pins that were seen in the log at an index.
    pub(crate) names: BTreeMap<u64, Names>,
}

impl Rules {
    /// Looks at every host; says what must not be.
    pub(crate) fn check(&mut self, world: &World) -> Result<(), String> {
        for host in &world.hosts {
            let in_host = |what: String| format!("host {}: {what}", host.number);
            let disks = host.disks();
            let contents = disks.state.contents(false);
            let position = position(&contents).map_err(in_host)?;
            self.check_alive(host).map_err(in_host)?;
            self.check_progress(host, &position).map_err(in_host)?;
            self.check_disks(host.number, &disks).map_err(in_host)?;
            self.check_digest(&position, &contents).map_err(in_host)?;
            check_commitment(world, &position).map_err(in_host)?;
            world.ledger.check_kept(host.number, &disks.state.contents(true)).map_err(in_host)?;
            let running = host.running().is_some();
            let now = world.trace.now();
            if running && self.waiting.check(host.number, now, position.index(), &contents).map_err(in_host)? {
                check_tracker(&host.peer, &contents).map_err(in_host)?;
            }
            contents.pins.iter().try_for_each(check_allocations).map_err(in_host)?;
            world.ledger.check_asked(contents.pins.iter().chain(&contents.log_pins())).map_err(in_host)?;
            let last = position.last.map_or((0, 0), |id| (id.index(), **id.committed_leader_id()));
            self.last = self.last.max(last);
        }
        self.check_log(world)
    }

    /// The log that was applied, carried out naively, comes to what the hosts showed, and what was acknowledged is in it.
    fn check_log(&self, world: &World) -> Result<(), String> {
        let chain = world.log.chain(self.last)?;
        let (written, committed) = world.ledger.all();
        let mut judge = Judge::new(written);
        judge.replay(&chain, &self.names)?;
        judge.check_committed(self.last.0, &chain, &committed)
    }

    /// No task that a peer cannot live without has ended, and there is one leader a term (INV10, INV24).
    fn check_alive(&mut self, host: &Host) -> Result<(), String> {
        let Some(running) = host.running() else { return Ok(()) };
        if let Some(task) = running.tasks.failed() {
            return Err(format!("the task {task:?} has failed"));
        }
        let position = running.consensus.position();
        let position = position.borrow();
        if position.role == Role::Leader {
            let leader = *self.leaders.entry(position.term).or_insert(host.number);
            if leader != host.number {
                return Err(format!("leads in term {}, as host {leader} did", position.term));
            }
        }
        Ok(())
    }

    /// What is applied never falls while a peer runs (INV5).
    fn check_progress(&mut self, host: &Host, position: &AppliedPosition) -> Result<(), String> {
        let Some(running) = host.running() else { return Ok(()) };
        let start = std::sync::Arc::as_ptr(&running.consensus) as usize;
        let before = self.applied.insert(host.number, (start, position.index()));
        match before {
            Some((same, before)) if same == start && before > position.index() => {
                Err(format!("applied falls from {before} to {}", position.index()))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is purged that is not applied, also after a power cut, and no promise is forgotten (INV11).
    fn check_disks(&mut self, number: usize, disks: &Disks) -> Result<(), String> {
        for durable in [true, false] {
            let extent = disks.log.extent(durable);
            let applied = position(&disks.state.contents(durable))?.index();
            let purged = extent.purged.map_or(0, |id: LogId| id.index());
            if purged > applied {
                return Err(format!("purged up to {purged}, applied up to {applied} (durable: {durable})"));
            }
        }
        let term = disks.log.extent(true).vote.map_or(0, |vote| vote.leader_id.term);
        let before = self.terms.insert(number, term).unwrap_or(0);
        if term < before { Err(format!("the promise of term {before} is forgotten for {term}")) } else { Ok(()) }
    }

    /// The digest is that of the records, and the same on all peers at the same index (INV7).
    fn check_digest(&mut self, position: &AppliedPosition, contents: &Contents) -> Result<(), String> {
        let mut sums: BTreeMap<u16, ShardSum> = BTreeMap::new();
        let pins = contents.log_pins();
        for pin in &pins {
            sums.entry(shard_of(&pin.cid)).or_default().add(pin);
        }
        let kept: BTreeMap<u16, ShardSum> =
            contents.shards.iter().copied().filter(|(_, sum)| *sum != ShardSum::default()).collect();
        if kept != sums {
            return Err(format!("the digest at index {} is not that of the records", position.index()));
        }
        let Some(last) = position.last else { return Ok(()) };
        let mut hasher = blake3::Hasher::new();
        for (shard, sum) in &kept {
            hasher.update(&shard.to_be_bytes()).update(&sum.hash);
        }
        for (cid, history) in &contents.histories {
            hasher.update(&cid.to_bytes()).update(&history.encode());
        }
        for (id, at) in &contents.merged {
            hasher.update(id.as_bytes()).update(&at.index.to_be_bytes());
        }
        self.names.entry(position.index()).or_insert_with(|| pins.iter().map(|pin| (pin.cid, name(pin))).collect());
        let seen = (**last.committed_leader_id(), *hasher.finalize().as_bytes());
        let known = *self.digests.entry(position.index()).or_insert(seen);
        if known == seen { Ok(()) } else { Err(format!("another state at index {} than elsewhere", position.index())) }
    }
}

/// What is applied is on the disks of a majority of the voters (P1). While they change, it is one of the new voters: once the
/// change of both is on both majorities and the leader has written the end of it, the old ones are not asked any more.
fn check_commitment(world: &World, position: &AppliedPosition) -> Result<(), String> {
    let Some(last) = position.last else { return Ok(()) };
    let membership = position.membership.membership();
    let Some(voters) = membership.get_joint_config().last() else { return Ok(()) };
    let holds = |voter: &&u64| {
        let host = membership.get_node(voter).and_then(|node| world.numbers.get(&node.peer));
        host.is_some_and(|host| world.hosts[*host].disks().log.is_durable(last))
    };
    let holders = voters.iter().filter(holds).count();
    if holders * 2 <= voters.len() {
        let (voters, members) = (voters.len(), &position.membership);
        return Err(format!("applied {last}, which only {holders} of {voters} voters have on disk: {members}"));
    }
    Ok(())
}

/// There is a record for what this peer was given, and for what it still has to drop (INV16, INV17).
fn check_tracker(peer: &PeerId, contents: &Contents) -> Result<(), String> {
    use TrackerStatus as S;
    let wanted: BTreeSet<_> = contents.pins.iter().filter(|pin| pin.is_allocated_to(peer)).map(|pin| pin.cid).collect();
    let mut found = BTreeSet::new();
    for task in &contents.tracked {
        let dropping = matches!(task.record.status, S::UnpinQueued | S::Unpinning | S::UnpinError);
        if wanted.contains(&task.cid) == dropping {
            return Err(format!("{} is {:?}, wanted: {}", task.cid, task.record.status, !dropping));
        }
        found.insert(task.cid);
    }
    match wanted.iter().find(|cid| !found.contains(*cid)) {
        Some(cid) => Err(format!("{cid} is given to this peer, and not tracked")),
        None => Ok(()),
    }
}

/// A pin has as many holders as it wants, none of them twice (INV12).
fn check_allocations(pin: &Pin) -> Result<(), String> {
    let (min, max) = (pin.options.replication_factor_min, pin.options.replication_factor_max);
    let (least, most) = match ReplicationFactor::checked(min, max) {
        Ok(ReplicationFactor::Everywhere) => (0, 0),
        Ok(ReplicationFactor::Between { min, max }) => (min as usize, max as usize),
        Err(error) => return Err(error.to_string()),
    };
    let holders: BTreeSet<_> = pin.allocations.iter().collect();
    let fits = (least..=most).contains(&holders.len()) && holders.len() == pin.allocations.len();
    if fits { Ok(()) } else { Err(format!("{} wants {min} to {max} holders, and has {:?}", pin.cid, pin.allocations)) }
}

/// Where a state is in the log.
pub(crate) fn position(contents: &Contents) -> Result<AppliedPosition, String> {
    AppliedPosition::decode(contents.applied.as_ref()).map_err(|error| error.to_string())
}
