//! What the fuzzers call: blocks and archives from outside, and what must hold of whatever becomes of them.

use bytes::Bytes;
use cluster_types::{BoxError, Cid, Codec, PinDepth};
use futures::{Stream, StreamExt};

use crate::unixfs::car::{CarError, CarReader, write_block, write_header};
use crate::unixfs::dagpb::{self, NewLink};
use crate::unixfs::export::export;
use crate::unixfs::read::{inspect, list_directory, read_file, resolve};
use crate::unixfs::{CidBuilder, links, verify};

/// Items of a stream that are looked at: hostile sizes promise more than anybody reads.
const ITEMS: usize = 2_000;

/// Runs what waits for nothing from outside.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

fn name(codec: u64, data: &[u8]) -> Cid {
    CidBuilder::new(1, "sha2-256").expect("it is known").cid(codec, data)
}

/// A dag-pb block: what was read is written and read to the same.
pub fn dag_pb(data: &[u8]) {
    let Ok(payload) = dagpb::data(data) else { return };
    let Ok(read) = dagpb::links(data).collect::<Result<Vec<_>, _>>() else { return };
    let Ok(cids) = read.iter().map(dagpb::Link::cid).collect::<Result<Vec<_>, _>>() else { return };
    assert_eq!(links(&name(Codec::DAG_PB, data), data).as_deref(), Ok(cids.as_slice()));
    let Ok(names) = read.iter().map(|link| std::str::from_utf8(link.name)).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let new = cids.iter().zip(&names).zip(&read);
    let new = new.map(|((cid, name), link)| NewLink { cid: *cid, name: (*name).into(), size: link.size });
    let written = dagpb::encode(new, payload);
    let again: Vec<_> = dagpb::links(&written).collect::<Result<_, _>>().expect("what was written can be read");
    assert_eq!(again.len(), read.len());
    assert!(again.iter().zip(&read).all(|(one, other)| one.name == other.name && one.size == other.size));
    assert_eq!(dagpb::data(&written), Ok(payload));
}

/// A dag-cbor block: its links are bounded by its bytes.
pub fn dag_cbor(data: &[u8]) {
    let cid = name(Codec::DAG_CBOR, data);
    if let Ok(links) = links(&cid, data) {
        // The shortest link: a tag, a head, a zero, and an identity CID without bytes.
        assert!(links.len() * 8 <= data.len(), "{} links in {} bytes", links.len(), data.len());
    }
}

/// Blocks that lead to each other, as a file, as a directory, as a path and as an archive: everything ends, and soon. Each block
/// has its length in front; which one a CID leads to follows from its last byte, so that links can lead anywhere.
pub fn unixfs(data: &[u8]) {
    let (mut blocks, mut rest) = (Vec::new(), data);
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(more.len());
        let (block, left) = more.split_at(length);
        blocks.push(Bytes::copy_from_slice(block));
        rest = left;
    }
    let Some(first) = blocks.first() else { return };
    let root = name(Codec::DAG_PB, first);
    let _ = inspect(&root, first);
    let fetch = |blocks: Vec<Bytes>| {
        move |cid: Cid| {
            let place = cid.hash_bytes().last().map_or(0, |last| usize::from(*last) % blocks.len());
            // The root is the first block, whatever its name ends with.
            let block = if cid == root { blocks[0].clone() } else { blocks[place].clone() };
            std::future::ready(Ok::<_, BoxError>(block))
        }
    };
    drain(read_file(fetch(blocks.clone()), root, 0..1 << 20));
    drain(read_file(fetch(blocks.clone()), root, u64::MAX - 5..u64::MAX));
    drain(list_directory(fetch(blocks.clone()), root));
    for path in ["a", "a/b", "..", "00"] {
        let _ = now(resolve(fetch(blocks.clone()), root, path));
    }
    drain(export(fetch(blocks.clone()), root, PinDepth::RECURSIVE));
    drain(export(fetch(blocks), root, PinDepth(2)));
}

fn drain<T, E>(stream: impl Stream<Item = Result<T, E>>) {
    now(stream.take(ITEMS).for_each(|_| std::future::ready(())));
}

/// An archive: it reads the same however the network cuts it, every block has its name, and what was read can be written.
pub fn car(data: &[u8]) {
    let whole = blocks_of(data, data.len().max(1));
    for step in [1, 7, 1_000] {
        assert_eq!(blocks_of(data, step), whole, "cut after every {step} bytes");
    }
    let (roots, blocks, end) = whole;
    let Some(roots) = roots else { return };
    let mut written = write_header(&roots).to_vec();
    for (cid, data) in &blocks {
        assert_eq!(verify(cid, data), Ok(()), "{cid}");
        written.extend_from_slice(&write_block(&crate::ports::Block { cid: *cid, data: data.clone() }));
    }
    let again = blocks_of(&written, written.len());
    assert_eq!((again.0, again.1), (Some(roots), blocks));
    assert!(end.is_some() || again.2.is_none());
}

/// Roots, blocks, and what ended it.
type Archive = (Option<Vec<Cid>>, Vec<(Cid, Bytes)>, Option<CarError>);

fn blocks_of(data: &[u8], step: usize) -> Archive {
    let mut reader = CarReader::new();
    let mut blocks = Vec::new();
    for piece in data.chunks(step) {
        reader.push(piece);
        loop {
            match reader.next_block() {
                Ok(Some(block)) => blocks.push((block.cid, block.data)),
                Ok(None) => break,
                Err(error) => return (reader.roots().map(<[Cid]>::to_vec), blocks, Some(error)),
            }
        }
    }
    let end = reader.finish().err();
    (reader.roots().map(<[Cid]>::to_vec), blocks, end)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};
    use std::path::PathBuf;

    use crate::testing::mutate::ShortRun;

    #[expect(clippy::print_stdout, reason = "a run that fails can be replayed")]
    fn run(name: &str, target: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        // Every hasher starts from random keys; the seed is printed.
        let run = ShortRun::new(RandomState::new().hash_one(name));
        println!("{run:?}");
        run.over(&corpus, target);
    }

    #[test]
    fn blocks_of_dag_pb() {
        run("dag-pb", super::dag_pb);
    }

    #[test]
    fn blocks_of_dag_cbor() {
        run("dag-cbor", super::dag_cbor);
    }

    #[test]
    fn files_and_directories() {
        run("unixfs", super::unixfs);
    }

    #[test]
    fn archives() {
        run("car", super::car);
    }
}
