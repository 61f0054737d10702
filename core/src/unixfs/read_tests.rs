//! What is built reads back, and what was made to harm does not.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

use super::*;
use crate::ports::Block;
use crate::unixfs::car::CarReader;
use crate::unixfs::dagpb::{NewLink, encode};
use crate::unixfs::directory::{DirectoryShape, build_directory, build_symlink};
use crate::unixfs::file::{Built, FileBuilder, FileShape};
use crate::unixfs::{CidBuilder, unixfs};

fn cids() -> CidBuilder {
    CidBuilder::new(0, "sha2-256").unwrap()
}

#[derive(Default)]
struct Blocks(HashMap<Cid, Bytes>);

impl Blocks {
    fn put(&mut self, block: Block) {
        self.0.insert(block.cid, block.data);
    }

    fn node(&mut self, links: &[(Cid, u64)], data: &[u8]) -> Cid {
        let links = links.iter().map(|(cid, size)| NewLink { cid: *cid, name: "".into(), size: *size });
        let data: Bytes = encode(links, data).into();
        let cid = cids().cid(Codec::DAG_PB, &data);
        self.put(Block { cid, data });
        cid
    }

    fn file(&mut self, data: &[u8], chunk: usize, raw_leaves: bool) -> Built {
        let mut builder = FileBuilder::new(cids(), FileShape { raw_leaves, ..FileShape::default() });
        let mut blocks = Vec::new();
        data.chunks(chunk).for_each(|chunk| builder.push(Bytes::copy_from_slice(chunk), &mut blocks));
        let built = builder.finish(&mut blocks);
        blocks.into_iter().for_each(|block| self.put(block));
        built
    }

    fn fetch(&self) -> impl Fn(Cid) -> std::future::Ready<Result<Bytes, BoxError>> + Send + Sync + '_ {
        |cid| std::future::ready(self.0.get(&cid).cloned().ok_or_else(|| "it is not there".into()))
    }

    fn read(&self, root: Cid, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let pieces: Result<Vec<Bytes>, _> =
            futures::executor::block_on(read_file(self.fetch(), root, range).try_collect());
        pieces.map(|pieces| pieces.concat())
    }

    fn list(&self, root: Cid) -> Result<Vec<DirectoryEntry>, ReadError> {
        futures::executor::block_on(list_directory(self.fetch(), root).try_collect())
    }

    fn resolve(&self, root: Cid, path: &str) -> Result<Cid, ReadError> {
        futures::executor::block_on(resolve(self.fetch(), root, path))
    }
}

#[test]
fn a_range_fetches_only_the_blocks_it_needs() {
    let mut blocks = Blocks::default();
    let data: Vec<u8> = (0..100_u8).collect();
    let root = blocks.file(&data, 10, true).cid;
    let fetched = std::sync::Mutex::new(0);
    let fetch = |cid| {
        *fetched.lock().unwrap() += 1;
        blocks.fetch()(cid)
    };
    let pieces: Vec<_> = futures::executor::block_on(read_file(fetch, root, 25..35).collect());
    let pieces: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap()).collect();
    assert_eq!(pieces, data[25..35]);
    assert_eq!(*fetched.lock().unwrap(), 3);
}

#[test]
fn a_missing_block_is_named() {
    let mut blocks = Blocks::default();
    let root = blocks.file(&[1; 100], 10, false).cid;
    let gone = super::super::links(&root, &blocks.0[&root]).unwrap()[0];
    blocks.0.remove(&gone);
    assert!(matches!(blocks.read(root, 0..u64::MAX), Err(ReadError::Fetch { cid, .. }) if cid == gone));
}

#[test]
fn a_trickle_file_of_kubo_reads_in_order() {
    // 2,000 bytes, byte i being 7 i mod 13: `ipfs add --trickle --chunker=size-3`, then `ipfs dag export`.
    let mut reader = CarReader::new();
    reader.push(include_bytes!("golden/trickle.car"));
    let mut blocks = Blocks::default();
    while let Some(block) = reader.next_block().unwrap() {
        blocks.put(block);
    }
    reader.finish().unwrap();
    let data: Vec<u8> = (0..2000_u32).map(|place| (place * 7 % 13) as u8).collect();
    let root = reader.roots().unwrap()[0];
    assert_eq!(blocks.read(root, 0..u64::MAX).unwrap(), data);
    assert_eq!(blocks.read(root, 600..1999).unwrap(), data[600..1999]);
}

#[test]
fn lies_about_sizes_are_refused() {
    let mut blocks = Blocks::default();
    let leaf = blocks.file(b"four", 10, true).cid;
    let reason = |blocks: &Blocks, cid| match blocks.read(cid, 0..u64::MAX) {
        Err(ReadError::Malformed(error)) => error.reason,
        other => format!("{other:?}"),
    };
    let wrong = blocks.node(&[(leaf, 4)], &unixfs::file_node([5].into_iter()));
    assert_eq!(reason(&blocks, wrong), "its size is not what its parent says");
    let fewer = blocks.node(&[(leaf, 4)], &unixfs::file_node([].into_iter()));
    assert_eq!(reason(&blocks, fewer), "it has more links than sizes");
    let more = blocks.node(&[], &unixfs::file_node([4].into_iter()));
    assert_eq!(reason(&blocks, more), "it has more sizes than links");
    let huge = [0x08, 2, 0x18, 9];
    let huge = blocks.node(&[], &huge);
    assert_eq!(reason(&blocks, huge), "its sizes contradict each other");
}

#[test]
fn a_tower_of_nodes_is_refused_and_empty_parts_cost_nothing() {
    let mut blocks = Blocks::default();
    let mut cid = blocks.file(b"x", 1, true).cid;
    for _ in 0..=MAX_DEPTH {
        cid = blocks.node(&[(cid, 1)], &unixfs::file_node([1].into_iter()));
    }
    assert!(blocks.read(cid, 0..1).unwrap_err().to_string().contains("nested too deeply"));
    let nowhere = cids().cid(Codec::DAG_PB, b"not there");
    let empty = blocks.node(&[(nowhere, 0); 1000], &unixfs::file_node([0; 1000].into_iter()));
    assert_eq!(blocks.read(empty, 0..1).unwrap(), b"");
}

#[test]
fn a_tower_of_wide_nodes_is_refused_and_so_is_a_shard_with_too_many_links() {
    let mut blocks = Blocks::default();
    let leaf = blocks.file(b"x", 1, true).cid;
    // Every node has the next one in front and many leaves behind it, which wait.
    let (mut cid, mut size) = (leaf, 1);
    for _ in 0..10 {
        let sizes = std::iter::once(size).chain(std::iter::repeat_n(1, 40_000));
        let links: Vec<_> = std::iter::once((cid, 1)).chain(std::iter::repeat_n((leaf, 1), 40_000)).collect();
        cid = blocks.node(&links, &unixfs::file_node(sizes));
        size += 40_000;
    }
    assert!(blocks.read(cid, 0..1).unwrap_err().to_string().contains("too many links"));

    let links = (0..257).map(|_| NewLink { cid: leaf, name: "00x".into(), size: 1 });
    let data: Bytes = encode(links, &unixfs::shard(&[0; 32])).into();
    let cid = cids().cid(Codec::DAG_PB, &data);
    blocks.put(Block { cid, data });
    assert!(blocks.list(cid).unwrap_err().to_string().contains("more links than places"));
}

#[test]
fn paths_lead_through_plain_and_sharded_directories() {
    let mut blocks = Blocks::default();
    let file = blocks.file(b"leaf", 10, true);
    let many: BTreeMap<String, Built> = (0..10_000).map(|number| (format!("file-{number}"), file)).collect();
    let mut made = Vec::new();
    let large = build_directory(cids(), &DirectoryShape::default(), &many, &mut |block| made.push(block)).unwrap();
    let link = build_symlink(cids(), "../x", &mut |block| made.push(block));
    let top = BTreeMap::from([("large".to_owned(), large), ("link".to_owned(), link)]);
    let top = build_directory(cids(), &DirectoryShape::default(), &top, &mut |block| made.push(block)).unwrap();
    assert!(made.len() > 200, "{}", made.len());
    made.into_iter().for_each(|block| blocks.put(block));

    let listed: BTreeMap<String, Cid> =
        blocks.list(large.cid).unwrap().into_iter().map(|entry| (entry.name, entry.cid)).collect();
    assert!(listed.keys().eq(many.keys()));
    assert_eq!(
        blocks.list(top.cid).unwrap().iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(),
        ["large", "link"]
    );
    assert_eq!(blocks.resolve(top.cid, "/large/file-9999").unwrap(), file.cid);
    assert_eq!(blocks.resolve(top.cid, "").unwrap(), top.cid);
    for path in ["large/file-10000", "large/", "small", "large/file-1/deeper", "link/x"] {
        let end = blocks.resolve(top.cid, path);
        if path == "large/" {
            assert_eq!(end.unwrap(), large.cid);
        } else {
            assert!(matches!(end, Err(ReadError::NoLink { .. })), "{path}");
        }
    }
    assert!(matches!(blocks.list(file.cid), Err(ReadError::WrongKind { .. })));
    assert!(matches!(blocks.read(top.cid, 0..1), Err(ReadError::WrongKind { .. })));
    let node = inspect(&link.cid, &blocks.0[&link.cid]).unwrap();
    assert_eq!((node.kind, &node.data[..]), (Kind::Symlink, &b"../x"[..]));
}

proptest! {
    #[test]
    fn files_read_back_in_every_range(
        data in proptest::collection::vec(any::<u8>(), 0..3000),
        chunk in 1_usize..20, raw in any::<bool>(), from in 0_u64..3000, length in 0_u64..3000,
    ) {
        let mut blocks = Blocks::default();
        let root = blocks.file(&data, chunk, raw).cid;
        prop_assert_eq!(&blocks.read(root, 0..u64::MAX).unwrap(), &data);
        let range = (from as usize).min(data.len())..((from + length) as usize).min(data.len());
        prop_assert_eq!(&blocks.read(root, from..from + length).unwrap(), &data[range]);
        prop_assert_eq!(inspect(&root, &blocks.0[&root]).unwrap().file_size, Some(data.len() as u64));
    }

    #[test]
    fn no_block_makes_the_readers_panic(data in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6, wrapped in any::<bool>()) {
        let mut blocks = Blocks::default();
        let cid = if wrapped {
            blocks.node(&[], &[&[0x08, kind][..], &data].concat())
        } else {
            let cid = cids().cid(Codec::DAG_PB, &data);
            blocks.put(Block { cid, data: data.into() });
            cid
        };
        let _ = blocks.read(cid, 0..u64::MAX);
        let _ = blocks.list(cid);
        let _ = blocks.resolve(cid, "a/b");
        let _ = inspect(&cid, &blocks.0[&cid]);
    }
}

#[tokio::test]
async fn a_directory_of_empty_shards_that_lead_to_each_other_ends() {
    let place = |place: usize| format!("{place:02X}");
    let shard = |below: Cid| {
        let names: Vec<_> = (0..256).map(place).collect();
        let links = names.iter().map(|name| NewLink { cid: below, name: name.as_str().into(), size: 1 });
        Bytes::from(encode(links, &unixfs::shard(&[0xff; 32])))
    };
    // Eight levels of 256 links each: 2^64 ways down, and nothing there.
    let mut blocks = HashMap::new();
    let mut cid = cids().cid(Codec::DAG_PB, b"");
    for _ in 0..8 {
        let block = shard(cid);
        cid = cids().cid(Codec::DAG_PB, &block);
        blocks.insert(cid, block);
    }
    let fetch = |cid| std::future::ready(blocks.get(&cid).cloned().ok_or_else(|| BoxError::from("absent")));
    let error = list_directory(fetch, cid).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(error.to_string().contains("twice") || error.to_string().contains("cannot get"), "{error}");
}
