//! What the fuzzers call: messages and blocks from outside, and what must hold of whatever becomes of them.

use bytes::Bytes;
use cluster_types::Codec;
use prost::Message as _;

use super::rpc::codec;
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

/// A block that is given to the RPC, as dag-json and as what else it may be: what was read is written the same way however
/// often it is read again, and no link of it is lost.
pub fn dag_json(data: &[u8]) {
    for codec in [codec::DAG_JSON, Codec::DAG_CBOR, Codec::DAG_PB] {
        let Ok(node) = codec::decode(codec, data) else { continue };
        let links = codec::links(&node);
        for target in [codec::DAG_JSON, Codec::DAG_CBOR, Codec::DAG_PB] {
            let Ok(written) = codec::encode(target, &node) else { continue };
            let again = codec::decode(target, &written).expect("what was written is read");
            assert_eq!(codec::encode(target, &again).as_ref(), Ok(&written));
            assert_eq!(codec::links(&again).len(), links.len());
        }
        for (path, _cid) in &links {
            let path: Vec<String> = path.split('/').map(str::to_owned).collect();
            let _ = codec::descend(&node, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cluster_core::testing::mutate::ShortRun;

    #[expect(clippy::print_stdout, reason = "a run that fails can be replayed")]
    fn short_run(corpus: &str, judge: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(corpus);
        let run = ShortRun::new(rand::random());
        println!("{run:?}");
        run.over(&corpus, judge);
    }

    #[test]
    fn messages() {
        short_run("bitswap", super::bitswap);
    }

    #[test]
    fn blocks() {
        short_run("dag-json", super::dag_json);
    }
}
