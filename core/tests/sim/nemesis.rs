//! Does harm: cuts, delays, breaks and repeats, crashes and restarts, moves leadership and clocks.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::consensus::Consensus;
use cluster_core::task::OnExit;
use cluster_core::testing::Crash;
use cluster_core::testing::mem_ipfs::{IpfsCall, IpfsFault};
use cluster_types::{BoxError, PeerId};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::world::World;

/// One kind of harm, or the end of some.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    CutOneWay,
    IsolateLeader,
    Split,
    Groups,
    Away,
    Return,
    Heal,
    Delay,
    Break,
    Repeat,
    LoseGossip,
    CrashOne,
    CrashLeader,
    PowerCutOfAll,
    Restart,
    Elect,
    MoveClock,
    BreakNode,
    Calm,
}

/// How likely each is, in parts of their sum.
const WEIGHTS: [(Harm, u32); 20] = [
    (Harm::Cut, 3),
    (Harm::CutOneWay, 3),
    (Harm::IsolateLeader, 3),
    (Harm::Split, 3),
    (Harm::Groups, 3),
    (Harm::Away, 2),
    (Harm::Return, 2),
    (Harm::Heal, 6),
    (Harm::Delay, 2),
    (Harm::Break, 3),
    (Harm::Repeat, 2),
    (Harm::LoseGossip, 1),
    (Harm::CrashOne, 4),
    (Harm::CrashLeader, 4),
    (Harm::PowerCutOfAll, 1),
    (Harm::Restart, 8),
    (Harm::Elect, 3),
    (Harm::MoveClock, 1),
    (Harm::BreakNode, 2),
    (Harm::Calm, 2),
];

/// Draws a harm and does it.
pub(crate) async fn strike(world: &Arc<World>, chance: &mut StdRng) {
    let harm = draw(chance);
    let count = world.hosts.len();
    let one = chance.random_range(0..count);
    let other = (one + chance.random_range(1..count)) % count;
    world.trace.note("nemesis", &[one as u64, other as u64], format!("{harm:?}"), &[]);
    let peer = |number: usize| world.hosts[number].peer;
    let leader = world.leader().map(|(number, _)| number);
    match harm {
        Harm::Cut => world.net.cut(peer(one), peer(other)),
        Harm::CutOneWay => world.net.cut_one_way(peer(one), peer(other)),
        Harm::IsolateLeader => world.net.isolate(peer(leader.unwrap_or(one))),
        Harm::Split => {
            let size = chance.random_range(1..count);
            let mut peers: Vec<PeerId> = world.hosts.iter().map(|host| host.peer).collect();
            peers.rotate_left(one);
            world.net.partition(&peers[..size], &peers[size..]);
        }
        Harm::Groups => {
            // Up to as many groups as peers: often none has a majority.
            let groups: Vec<usize> = (0..count).map(|_| chance.random_range(0..count)).collect();
            for (low, high) in (0..count).flat_map(|high| (0..high).map(move |low| (low, high))) {
                if groups[low] != groups[high] {
                    world.net.cut(peer(low), peer(high));
                }
            }
        }
        Harm::Away => {
            world.away.lock().insert(one);
            world.net.isolate(peer(one));
            if chance.random_bool(0.3) {
                world.crash(one, crash(chance));
            }
        }
        Harm::Return => {
            world.away.lock().clear();
            world.heal();
        }
        Harm::Heal => world.heal(),
        Harm::Delay => {
            let longest = [20, 100, 400, 1_500][chance.random_range(0..4)];
            world.net.set_delay(Duration::ZERO..Duration::from_millis(longest));
        }
        Harm::Break => world.net.set_break_rate([0.0, 0.02, 0.1, 0.4][chance.random_range(0..4)]),
        Harm::Repeat => world.net.set_repeat_rate([0.0, 0.1, 0.5][chance.random_range(0..3)]),
        Harm::LoseGossip => world.net.set_gossip_loss([0.0, 0.3, 1.0][chance.random_range(0..3)]),
        Harm::CrashOne => world.crash(one, crash(chance)),
        Harm::CrashLeader => world.crash(leader.unwrap_or(one), crash(chance)),
        Harm::PowerCutOfAll => (0..count).for_each(|number| world.crash(number, Crash::PowerCut)),
        Harm::Restart => {
            for number in 0..count {
                if chance.random_bool(0.7) {
                    world.restart(number).await;
                }
            }
        }
        Harm::Elect => elect(world),
        Harm::MoveClock => world.hosts[one].clock.set_error(chance.random_range(-300..=300)),
        Harm::BreakNode => {
            let fault = if chance.random_bool(0.5) { IpfsFault::Unreachable } else { IpfsFault::Refused("no".into()) };
            let call = if chance.random_bool(0.5) { IpfsCall::Pin } else { IpfsCall::Unpin };
            world.hosts[one].ipfs.break_call(call, fault);
        }
        Harm::Calm => world.calm(),
    }
}

fn draw(chance: &mut StdRng) -> Harm {
    let mut left = chance.random_range(0..WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (harm, weight) in WEIGHTS {
        if left < weight {
            return harm;
        }
        left -= weight;
    }
    Harm::Calm
}

fn crash(chance: &mut StdRng) -> Crash {
    if chance.random_bool(0.3) { Crash::Killed } else { Crash::PowerCut }
}

/// The leader gives up its place, if there is one.
fn elect(world: &Arc<World>) {
    let Some((_, running)) = world.leader() else { return };
    world.tasks.spawn("hand over", OnExit::Continue, async move {
        tokio::select! {
            biased;
            () = running.dead.cancelled() => {}
            () = running.consensus.hand_over() => {}
        }
        Ok::<(), BoxError>(())
    });
}
