//! Random histories of peers that write together and apart, checked against what was wished.
//!
//! A [`World`] has a log, peers at different places of it, cuts that come and go, outboxes and partial gossip. Every
//! wish is noted with the wishes its author had seen; the [oracle](oracle) knows nothing of versions or histories and
//! says from these notes alone what must stand in the end.
//!
//! `MERGE_SEED=<seed>` runs one history again; `MERGE_CASES=<number>` runs more of them.

mod oracle;
mod planted;
mod world;

use super::set::MergeFn;
use world::World;

pub(super) use world::peer;

/// Histories per run; each is checked in three further orders of its merges.
const CASES: u64 = 10_000;

/// The first seed of the everyday run.
const FIRST_SEED: u64 = 0x6d65_7267_6500_0000;

/// Plays one history; says what is wrong with its end.
fn play(seed: u64, merge: MergeFn) -> Result<World, String> {
    let mut world = World::new(seed, merge);
    world.run();
    oracle::check(&mut world)?;
    Ok(world)
}

/// Plays histories until one is wrong.
fn first_failure(seeds: impl Iterator<Item = u64>, merge: MergeFn) -> Option<(u64, String)> {
    seeds.map(|seed| (seed, play(seed, merge))).find_map(|(seed, end)| end.err().map(|story| (seed, story)))
}

#[test]
#[expect(clippy::print_stdout, reason = "a run that failed is repeated by its seed")]
fn whatever_the_order_peers_agree_nothing_wanted_is_lost_and_nothing_removed_returns() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = setting("MERGE_SEED") {
        if let Err(story) = play(seed, super::merge) {
            panic!("MERGE_SEED={seed}: {story}");
        }
        return;
    }
    let cases = setting("MERGE_CASES").unwrap_or(CASES);
    println!("seeds {FIRST_SEED} to {}", FIRST_SEED + cases - 1);
    let threads = 2;
    let failures: Vec<_> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let seeds = (FIRST_SEED..FIRST_SEED + cases).skip(part).step_by(threads);
                scope.spawn(|| first_failure(seeds, super::merge))
            })
            .collect();
        parts.into_iter().filter_map(|part| part.join().unwrap()).collect()
    });
    if let Some((seed, story)) = failures.first() {
        panic!("MERGE_SEED={seed}: {story}");
    }
}

/// The histories are worth something only when they contain what the rules are about.
#[test]
fn the_histories_meet_every_rule() {
    let mut rules = std::collections::BTreeMap::new();
    for seed in FIRST_SEED..FIRST_SEED + 400 {
        let world = play(seed, super::merge).unwrap_or_else(|story| panic!("MERGE_SEED={seed}: {story}"));
        for conflict in &world.conflicts {
            *rules.entry(conflict.rule).or_insert(0_u32) += 1;
        }
    }
    assert_eq!(rules.len(), 5, "{rules:?}");
}
