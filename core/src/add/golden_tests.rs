//! Uploads get the CIDs that a real Kubo gives them: every line of `golden/kubo.txt` (made by `golden/make.py`). Its
//! archives and ours are the same bytes.

use bytes::{Bytes, BytesMut};
use cluster_types::{AddLayout, AddParams, AddedOutput, Cid};
use tokio::sync::mpsc;

use super::*;
use crate::ports::Block;

const TABLE: &str = include_str!("golden/kubo.txt");

/// Forgets the blocks.
struct Nowhere;

#[async_trait::async_trait]
impl BlockSink for Nowhere {
    async fn put(&mut self, _blocks: Vec<Block>) -> ServiceResult<()> {
        Ok(())
    }

    async fn finish(&mut self, _root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        Ok(Vec::new())
    }
}

/// The generated content of the table: splitmix64 with seed 42.
fn generated(length: usize) -> Bytes {
    let mut state = 42_u64;
    let mut bytes = BytesMut::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.freeze()
}

fn file(path: impl Into<String>, mut data: Bytes) -> Vec<AddEvent> {
    let mut events = vec![AddEvent::File { path: path.into() }];
    while !data.is_empty() {
        events.push(AddEvent::Data(data.split_to(data.len().min(AddEvent::MAX_DATA))));
    }
    events.push(AddEvent::EndOfFile);
    events
}

fn add(params: &AddParams, events: Vec<AddEvent>) -> (Cid, Vec<AddedOutput>) {
    let plan = ImportPlan::check(params).unwrap();
    let (send, receive) = mpsc::channel(events.len());
    events.into_iter().for_each(|event| send.try_send(Ok(event)).unwrap());
    drop(send);
    let (tell, mut told) = mpsc::channel(100_000);
    let root = futures::executor::block_on(import(&plan, receive, &mut Nowhere, tell)).unwrap();
    (root, std::iter::from_fn(|| told.try_recv().ok()).collect())
}

fn params(version: &str, leaves: &str) -> AddParams {
    AddParams { cid_version: version.parse().unwrap(), raw_leaves: leaves == "raw", ..AddParams::default() }
}

/// The lines of the table that begin with `kind`, without it; there must be some.
fn lines(kind: &str) -> Vec<Vec<&'static str>> {
    let split = TABLE.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found: Vec<_> = split.filter(|words| words[0] == kind).map(|words| words[1..].to_vec()).collect();
    assert!(!found.is_empty(), "the table has no {kind}");
    found
}

/// The small directories of the table, in the order in which a client walks them.
fn directory(name: &str) -> Vec<AddEvent> {
    let made = |path: &str| vec![AddEvent::Directory { path: path.to_owned() }];
    let plain = |top: &str| {
        let mut events = made(top);
        for (name, data) in [("Z", "capital"), ("a", "one"), ("a.b", ""), ("b", "two")] {
            events.extend(file(format!("{top}/{name}"), Bytes::from(data)));
        }
        events.push(AddEvent::Symlink { path: format!("{top}/link"), target: "../a".to_owned() });
        events.extend(file(format!("{top}/é"), Bytes::from("accent")));
        events
    };
    match name {
        "empty" => made("empty"),
        "plain" => plain("plain"),
        _ => [
            made("nested"),
            plain("nested/plain"),
            file("nested/r", Bytes::from("r")),
            made("nested/void"),
            made("nested/x"),
            file("nested/x/top", generated(262_145)),
            made("nested/x/y"),
            made("nested/x/y/z"),
            file("nested/x/y/z/deep", Bytes::from("deep\n")),
        ]
        .concat(),
    }
}

#[test]
fn files_have_the_cids_of_kubo() {
    let whole = generated(100_000_000);
    for line in lines("file") {
        let [length, version, leaves, chunker, hash, cid] = line[..] else { panic!("{line:?}") };
        let params = AddParams { chunker: chunker.to_owned(), hash: hash.to_owned(), ..params(version, leaves) };
        let (root, _) = add(&params, file("file", whole.slice(..length.parse::<usize>().unwrap())));
        assert_eq!(root.to_string(), cid, "{line:?}");
    }
}

#[test]
fn files_of_every_shape_have_the_cids_of_kubo() {
    let (whole, zeros) = (generated(60_000_000), Bytes::from(vec![0; 3_000_000]));
    for line in lines("shape") {
        let [length, version, leaves, chunker, shape, cid] = line[..] else { panic!("{line:?}") };
        let layout = if shape == "trickle" { AddLayout::Trickle } else { AddLayout::Balanced };
        let params = AddParams { chunker: chunker.to_owned(), layout, ..params(version, leaves) };
        let content = if shape == "zeros" { &zeros } else { &whole };
        let (root, _) = add(&params, file("file", content.slice(..length.parse::<usize>().unwrap())));
        assert_eq!(root.to_string(), cid, "{line:?}");
    }
}

#[test]
fn directories_have_the_cids_of_kubo() {
    for line in lines("directory") {
        let [name, version, leaves, wrapped, cid] = line[..] else { panic!("{line:?}") };
        let params = AddParams { wrap_with_directory: wrapped == "wrapped", ..params(version, leaves) };
        assert_eq!(add(&params, directory(name)).0.to_string(), cid, "{line:?}");
    }
}

#[test]
fn large_directories_have_the_cids_of_kubo() {
    for line in lines("many") {
        let [count, version, leaves, width, cid] = line[..] else { panic!("{line:?}") };
        let width: usize = width.parse().unwrap();
        let events = (0..count.parse().unwrap())
            .flat_map(|number: u32| file(format!("many/{number:0width$}"), number.to_string().into()))
            .collect();
        assert_eq!(add(&params(version, leaves), events).0.to_string(), cid, "{line:?}");
    }
}

#[test]
fn entries_are_told_in_the_order_of_kubo() {
    let (_, outputs) = add(&AddParams::default(), directory("nested"));
    let told: Vec<String> = outputs.iter().map(|output| format!("{} {}", output.cid.unwrap(), output.name)).collect();
    let listed: Vec<String> = lines("listing").iter().map(|line| line.join(" ")).collect();
    assert_eq!(told, listed);
}

#[test]
fn an_archive_of_kubo_holds_the_blocks_that_are_made_here() {
    // `ipfs dag export` of the directory `plain`: depth first, every block once.
    let archive = include_bytes!("golden/plain.car");
    let car = AddParams { format: AddFormat::Car, ..AddParams::default() };
    let (root, _) = add(&car, file("plain.car", Bytes::from_static(archive)));
    assert_eq!(root, add(&AddParams::default(), directory("plain")).0);

    let mut reader = crate::unixfs::car::CarReader::new();
    reader.push(archive);
    let mut again = crate::unixfs::car::write_header(&[root]).to_vec();
    while let Some(block) = reader.next_block().unwrap() {
        again.extend(crate::unixfs::car::write_block(&block));
    }
    assert_eq!(again, archive);
}
