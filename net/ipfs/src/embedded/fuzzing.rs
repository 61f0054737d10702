//! What the fuzzer of bitswap calls: messages from outside, and what must hold of whatever becomes of them.

use bytes::Bytes;
use prost::Message as _;

use super::server::{Ledger, MAX_WANTS};
use super::wire;

/// A message: what was read is written and read to the same, and its wants are bounded.
pub fn bitswap(data: &[u8]) {
    let Ok(message) = wire::decode(Bytes::copy_from_slice(data)) else { return };
    let written = Bytes::from(message.encode_to_vec());
    assert_eq!(wire::decode(written).ok().as_ref(), Some(&message));
    for payload in &message.payload {
        let _ = wire::multihash_of(payload);
    }
    let mut ledger = Ledger::default();
    for _ in 0..2 {
        if let Some(wantlist) = &message.wantlist {
            ledger.apply(wantlist);
        }
        let mut owed = 0;
        while let Some(next) = ledger.next() {
            ledger.met(&next.cid, next.block);
            owed += 1;
        }
        assert!(owed <= MAX_WANTS, "{owed} answers are owed");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cluster_core::testing::mutate::ShortRun;

    #[test]
    #[expect(clippy::print_stdout, reason = "a run that fails can be replayed")]
    fn messages() {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/bitswap");
        let run = ShortRun::new(rand::random());
        println!("{run:?}");
        run.over(&corpus, super::bitswap);
    }
}
