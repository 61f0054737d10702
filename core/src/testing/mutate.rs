//! Known inputs and mutations of them, for parsers of bytes from outside: a short run of what a fuzzer does for long.

use std::path::Path;
use std::str::FromStr;
use std::{fmt, fs};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The longest input.
const MAX_BYTES: usize = 64 * 1024;
/// Bytes that parsers trip over.
const TOKENS: [&[u8]; 22] = [
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"%",
    b"%00",
    b"&",
    b"=",
    b";",
    b"\r\n",
    b"--",
    b"\xff",
    b"\xe2\x80\xae",
    b"/",
    b".",
];

/// Mutations in a run, if `CLUSTER_FUZZ_ROUNDS` does not say otherwise.
const ROUNDS: u32 = 20_000;

/// A run that can be replayed: its `Debug` names what to set for that.
#[derive(Clone, Copy)]
pub struct ShortRun {
    seed: u64,
    rounds: u32,
}

impl fmt::Debug for ShortRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CLUSTER_FUZZ_SEED={} CLUSTER_FUZZ_ROUNDS={}", self.seed, self.rounds)
    }
}

impl ShortRun {
    /// A run by this seed, unless `CLUSTER_FUZZ_SEED` is set.
    pub fn new(seed: u64) -> Self {
        Self { seed: said("CLUSTER_FUZZ_SEED").unwrap_or(seed), rounds: said("CLUSTER_FUZZ_ROUNDS").unwrap_or(ROUNDS) }
    }

    /// Calls `target` with every file of the folder `corpus`, and then with mutations of them.
    ///
    /// # Panics
    ///
    /// If the corpus cannot be read, and if `target` does.
    pub fn over(self, corpus: &Path, target: impl Fn(&[u8])) {
        let mut names: Vec<_> = fs::read_dir(corpus)
            .expect("the corpus is there")
            .map(|entry| entry.expect("it can be read").path())
            .collect();
        names.sort();
        let known: Vec<Vec<u8>> = names.iter().map(|name| fs::read(name).expect("it can be read")).collect();
        assert!(!known.is_empty(), "{} has no file", corpus.display());
        known.iter().for_each(|input| target(input));
        let mut chance = StdRng::seed_from_u64(self.seed);
        for _ in 0..self.rounds {
            let mut input = known[chance.random_range(0..known.len())].clone();
            for _ in 0..chance.random_range(1..=4) {
                mutate(&mut input, &known, &mut chance);
            }
            input.truncate(MAX_BYTES);
            target(&input);
        }
    }
}

fn said<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn mutate(input: &mut Vec<u8>, known: &[Vec<u8>], chance: &mut StdRng) {
    let (from, to) = range(input.len(), chance);
    match chance.random_range(0..6) {
        0 => drop(input.drain(from..to)),
        1 => {
            let part = input[from..to].to_vec();
            input.splice(to..to, part);
        }
        2 => {
            let token = TOKENS[chance.random_range(0..TOKENS.len())];
            input.splice(from..to.min(from + token.len()), token.iter().copied());
        }
        3 => {
            let other = &known[chance.random_range(0..known.len())];
            let (start, end) = range(other.len(), chance);
            input.splice(from..to, other[start..end].iter().copied());
        }
        4 => input.truncate(to),
        _ => {
            if let Some(byte) = input.get_mut(from) {
                *byte ^= 1 << chance.random_range(0..8);
            }
        }
    }
}

/// A part of so many bytes, mostly a short one.
fn range(length: usize, chance: &mut StdRng) -> (usize, usize) {
    let from = chance.random_range(0..=length);
    let longest = if chance.random_range(0..4) == 0 { length - from } else { (length - from).min(8) };
    (from, from + chance.random_range(0..=longest))
}
