//! Uploads become the right blocks and the right answers; what was added reads back.

use std::collections::HashMap;

use bytes::Bytes;
use cluster_types::{BoxError, Codec, ErrorClass, PeerId, WireError};
use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::ports::Block;
use crate::unixfs::{CidBuilder, car as archive, read, verify};

#[derive(Default)]
struct MemorySink {
    blocks: HashMap<Cid, Bytes>,
    batches: Vec<(usize, usize)>,
    finished: Vec<Cid>,
    fail_at: Option<usize>,
}

#[async_trait::async_trait]
impl BlockSink for MemorySink {
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        if self.fail_at == Some(self.batches.len()) {
            return Err(WireError::new(ErrorClass::Unavailable, "failed to put block on all destinations"));
        }
        self.batches.push((blocks.len(), blocks.iter().map(|block| block.data.len()).sum()));
        for block in blocks {
            verify(&block.cid, &block.data).unwrap();
            self.blocks.insert(block.cid, block.data);
        }
        Ok(())
    }

    fn allocations(&self) -> Vec<PeerId> {
        if self.batches.is_empty() { Vec::new() } else { vec![peer()] }
    }

    async fn finish(&mut self, root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        self.finished.push(root);
        Ok(vec![AddedOutput { name: "from the sink".to_owned(), ..AddedOutput::default() }])
    }
}

fn peer() -> PeerId {
    cluster_types::parse_peer_id("12D3KooWEqkgRPfoBARUEVPXHFBhvPPXsuSjcbkgnUi9ENvhH5Y8").unwrap()
}

impl MemorySink {
    fn read(&self, root: Cid) -> Vec<u8> {
        let fetch = |cid: Cid| std::future::ready(self.blocks.get(&cid).cloned().ok_or_else(|| BoxError::from("gone")));
        let pieces: Result<Vec<Bytes>, _> =
            futures::executor::block_on(read::read_file(fetch, root, 0..u64::MAX).try_collect());
        pieces.unwrap().concat()
    }

    fn resolve(&self, root: Cid, path: &str) -> Cid {
        let fetch = |cid: Cid| std::future::ready(self.blocks.get(&cid).cloned().ok_or_else(|| BoxError::from("gone")));
        futures::executor::block_on(read::resolve(fetch, root, path)).unwrap()
    }
}

fn directory(path: &str) -> AddEvent {
    AddEvent::Directory { path: path.to_owned() }
}

fn file(path: &str, data: &[u8]) -> Vec<AddEvent> {
    let mut events = vec![AddEvent::File { path: path.to_owned() }];
    events.extend(data.chunks(AddEvent::MAX_DATA).map(|data| AddEvent::Data(Bytes::copy_from_slice(data))));
    events.push(AddEvent::EndOfFile);
    events
}

fn run_into(
    sink: &mut MemorySink,
    params: &AddParams,
    events: Vec<AddEvent>,
) -> ServiceResult<(Cid, Vec<AddedOutput>)> {
    let plan = ImportPlan::check(params)?;
    let (send, receive) = mpsc::channel(events.len().max(1));
    events.into_iter().for_each(|event| send.try_send(Ok(event)).unwrap());
    drop(send);
    let (tell, mut told) = mpsc::channel(10_000);
    let root = futures::executor::block_on(import(&plan, receive, sink, tell))?;
    let outputs = std::iter::from_fn(|| told.try_recv().ok()).collect();
    Ok((root, outputs))
}

fn run(params: &AddParams, events: Vec<AddEvent>) -> ServiceResult<(Cid, Vec<AddedOutput>)> {
    run_into(&mut MemorySink::default(), params, events)
}

fn names(outputs: &[AddedOutput]) -> Vec<&str> {
    outputs.iter().map(|output| output.name.as_str()).collect()
}

fn refusal(params: &AddParams, events: Vec<AddEvent>) -> String {
    let error = run(params, events).unwrap_err();
    assert_eq!(error.class, ErrorClass::Malformed, "{error}");
    error.message
}

#[test]
fn one_file_is_told_once_with_its_allocations() {
    let mut sink = MemorySink::default();
    let (root, outputs) = run_into(&mut sink, &AddParams::default(), file("hello.txt", b"hello world\n")).unwrap();
    assert_eq!(root.to_string(), "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    assert_eq!(names(&outputs), ["hello.txt", "from the sink"]);
    assert_eq!((outputs[0].cid, outputs[0].size, outputs[0].bytes), (Some(root), 20, 0));
    assert_eq!(outputs[0].allocations, [peer()]);
    assert_eq!(sink.finished, [root]);
}

#[test]
fn directories_come_after_their_children_and_the_root_comes_last() {
    let mut events = vec![directory("top"), directory("top/empty")];
    events.extend(file("top/z/deep/a", b"1"));
    events.extend(file("top/b", b"2"));
    events.push(AddEvent::Symlink { path: "top/link".to_owned(), target: "b".to_owned() });
    let mut sink = MemorySink::default();
    let (root, outputs) = run_into(&mut sink, &AddParams::default(), events.clone()).unwrap();
    let told = ["top/z/deep/a", "top/b", "top/link", "top/empty", "top/z/deep", "top/z", "top"];
    assert_eq!(names(&outputs)[..7], told);
    assert_eq!(outputs[6].cid, Some(root));
    assert_eq!(outputs[3].cid.unwrap().to_string(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    assert_eq!(sink.read(sink.resolve(root, "z/deep/a")), b"1");

    let wrapped = AddParams { wrap_with_directory: true, ..AddParams::default() };
    let (wrap, outputs) = run_into(&mut sink, &wrapped, events).unwrap();
    assert_eq!(names(&outputs)[..8], [&told[..], &[""]].concat());
    assert_eq!(outputs[7].cid, Some(wrap));
    assert_eq!(sink.resolve(wrap, "top"), root);
}

#[test]
fn of_several_top_level_entries_the_last_is_the_root() {
    let events = [file("a/x", b"1"), file("b", b"2"), file("c/y", b"3"), vec![directory("c/d")]].concat();
    let mut sink = MemorySink::default();
    let (root, outputs) = run_into(&mut sink, &AddParams::default(), events).unwrap();
    assert_eq!(names(&outputs), ["a/x", "a", "b", "c/y", "c/d", "c", "from the sink"]);
    assert_eq!(outputs[5].cid, Some(root));
    assert_eq!(sink.finished, [root]);
    let (root, outputs) = run(&AddParams::default(), [file("d/x", b"1"), file("b", b"2")].concat()).unwrap();
    assert_eq!((names(&outputs), outputs[2].cid), (vec!["d/x", "d", "b", "from the sink"], Some(root)));
}

#[test]
fn a_file_without_a_name_is_named_by_its_cid() {
    let name = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    let (_, outputs) = run(&AddParams::default(), file("", b"hello world\n")).unwrap();
    assert_eq!(names(&outputs), [name, "from the sink"]);
}

#[test]
fn progress_is_told_every_256_kib_and_at_the_end() {
    let params = AddParams { progress: true, ..AddParams::default() };
    let (_, outputs) = run(&params, file("top/f", &vec![7; 600_000])).unwrap();
    let progress: Vec<_> =
        outputs.iter().filter(|output| output.bytes > 0).map(|output| (output.name.as_str(), output.bytes)).collect();
    assert_eq!(progress, [("f", 262_144), ("f", 524_288), ("f", 600_000)]);
    assert!(outputs[..3].iter().all(|output| output.cid.is_none() && output.allocations.is_empty()));
    let (_, outputs) = run(&params, file("single", b"")).unwrap();
    assert_eq!(names(&outputs), ["", "single", "from the sink"]);
}

#[test]
fn batches_are_bounded() {
    let mut sink = MemorySink::default();
    run_into(&mut sink, &AddParams::default(), file("f", &vec![7; 5_000_000])).unwrap();
    let many = (0..300).flat_map(|number: u32| file(&format!("d/{number}"), &number.to_be_bytes())).collect();
    run_into(&mut sink, &AddParams::default(), many).unwrap();
    assert!(sink.batches.len() > 8);
    assert!(sink.batches.iter().all(|(blocks, bytes)| *blocks <= MAX_BATCH_BLOCKS && *bytes <= MAX_BATCH_BYTES));
}

#[test]
fn a_sink_that_fails_ends_the_import_unfinished() {
    let mut sink = MemorySink { fail_at: Some(2), ..MemorySink::default() };
    let error = run_into(&mut sink, &AddParams::default(), file("f", &vec![7; 5_000_000])).unwrap_err();
    assert_eq!(error.message, "failed to put block on all destinations");
    assert_eq!((sink.batches.len(), sink.finished.len()), (2, 0));
}

#[test]
fn an_upload_that_breaks_off_is_not_pinned() {
    let params = AddParams::default();
    assert_eq!(refusal(&params, vec![]), NOTHING);
    assert_eq!(refusal(&AddParams { wrap_with_directory: true, ..AddParams::default() }, vec![]), NOTHING);
    assert_eq!(refusal(&params, vec![AddEvent::File { path: "a".to_owned() }]), CUT);
    assert_eq!(refusal(&params, vec![AddEvent::EndOfFile]), DISORDER);
    assert_eq!(refusal(&params, vec![AddEvent::File { path: "a".to_owned() }, directory("b")]), DISORDER);

    let plan = ImportPlan::check(&params).unwrap();
    let mut sink = MemorySink::default();
    let (send, receive) = mpsc::channel(8);
    file("a", b"1").into_iter().for_each(|event| send.try_send(Ok(event)).unwrap());
    send.try_send(Err(WireError::new(ErrorClass::Invalid, "connection lost"))).unwrap();
    let (tell, _told) = mpsc::channel(8);
    let error = futures::executor::block_on(import(&plan, receive, &mut sink, tell)).unwrap_err();
    assert_eq!((error.message.as_str(), sink.finished.len()), ("connection lost", 0));
}

#[test]
fn hostile_paths_and_contradictions_are_refused() {
    let params = AddParams::default();
    for path in ["../a", "/etc/passwd", "a//b", "a/../../b", "a/."] {
        assert!(refusal(&params, file(path, b"x")).contains("invalid path"), "{path}");
        assert!(refusal(&params, vec![directory(path)]).contains("invalid path"), "{path}");
        let link = AddEvent::Symlink { path: path.to_owned(), target: "t".to_owned() };
        assert!(refusal(&params, vec![link]).contains("invalid path"), "{path}");
    }
    let twice = [file("d/a", b"1"), file("d/a", b"2")].concat();
    assert_eq!(refusal(&params, twice), "the upload has \"d/a\" twice");
    let both = [file("d/a", b"1"), file("d/a/b", b"2")].concat();
    assert_eq!(refusal(&params, both), "the upload has \"d/a\" both as a file and as a directory");
    let deep = vec!["d"; MAX_DEPTH + 1].join("/");
    assert!(refusal(&params, vec![directory(&deep)]).contains("nested too deeply"));
}

#[test]
fn parameters_are_refused_with_the_known_texts() {
    let refused = |params: AddParams| ImportPlan::check(&params).unwrap_err().message;
    let base = AddParams::default;
    assert_eq!(refused(AddParams { hash: "sha4".to_owned(), ..base() }), "hash function name not known");
    let wrapped = AddParams { format: AddFormat::Car, wrap_with_directory: true, ..base() };
    assert_eq!(refused(wrapped), "cannot wrap a CAR file upload");
    assert!(refused(AddParams { chunker: "rabin-1".to_owned(), ..base() }).contains("must grow"));
    assert!(refused(AddParams { hash: "blake3".to_owned(), ..base() }).contains("use cid-version 1"));
    assert!(ImportPlan::check(&AddParams { hash: "BLAKE3".to_owned(), cid_version: 1, ..base() }).is_ok());
}

fn car_of(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut bytes = archive::write_header(roots).to_vec();
    blocks.iter().for_each(|block| bytes.extend(archive::write_block(block)));
    bytes
}

fn raw(codec: u64, data: &[u8]) -> Block {
    let cid = CidBuilder::new(1, "sha2-256").unwrap().cid(codec, data);
    Block { cid, data: Bytes::copy_from_slice(data) }
}

#[test]
fn a_car_is_added_block_by_block() {
    let params = AddParams { format: AddFormat::Car, ..AddParams::default() };
    let (root, more) = (raw(Codec::RAW, b"root"), raw(Codec::RAW, b"more"));
    let car = car_of(&[root.cid], &[root.clone(), more.clone()]);
    let mut sink = MemorySink::default();
    let events = [file("x.car", &car), file("ignored", b"1")].concat();
    let (cid, outputs) = run_into(&mut sink, &params, events).unwrap();
    assert_eq!((cid, sink.blocks.len()), (root.cid, 2));
    assert_eq!(names(&outputs), ["x.car", "from the sink"]);
    assert_eq!((outputs[0].cid, outputs[0].bytes, outputs[0].size), (Some(cid), 8, 4));

    let two = car_of(&[root.cid, more.cid], std::slice::from_ref(&root));
    assert_eq!(refusal(&params, file("x", &two)), "only CAR files with a single root are supported");
    assert_eq!(
        refusal(&params, file("x", &car_of(&[], std::slice::from_ref(&root)))),
        "only CAR files with a single root are supported"
    );
    let odd = raw(0x78, b"git");
    assert!(refusal(&params, file("x", &car_of(&[odd.cid], std::slice::from_ref(&odd)))).contains("codec 0x78"));
    assert!(refusal(&params, file("x", &car[..car.len() - 1])).contains("ends too early"));
    assert!(refusal(&params, file("x", b"no archive")).contains("invalid CAR"));
    assert!(refusal(&params, vec![directory("d")]).contains("first part"));
}

proptest! {
    #[test]
    fn what_is_added_reads_back(
        data in proptest::collection::vec(any::<u8>(), 0..5000), chunk in 1_usize..300,
        raw_leaves in any::<bool>(), cid_version in 0_u32..2, wrap_with_directory in any::<bool>(),
    ) {
        let chunker = format!("size-{chunk}");
        let params = AddParams { chunker, raw_leaves, cid_version, wrap_with_directory, ..AddParams::default() };
        let mut sink = MemorySink::default();
        let (root, outputs) = run_into(&mut sink, &params, file("d/f", &data)).unwrap();
        let path = if wrap_with_directory { "d/f" } else { "f" };
        let cid = sink.resolve(root, path);
        prop_assert_eq!(outputs[0].cid, Some(cid));
        prop_assert_eq!(sink.read(cid), data);
    }

    #[test]
    fn no_order_of_events_makes_the_import_panic(
        picks in proptest::collection::vec((0_u8..5, "[ab./]{0,5}"), 0..20), wrap_with_directory in any::<bool>(), car in any::<bool>(),
    ) {
        let events = picks.into_iter().map(|(kind, text)| match kind {
            0 => AddEvent::Directory { path: text },
            1 => AddEvent::Symlink { path: text, target: "t".to_owned() },
            2 => AddEvent::File { path: text },
            3 => AddEvent::Data(text.into_bytes().into()),
            _ => AddEvent::EndOfFile,
        });
        let format = if car { AddFormat::Car } else { AddFormat::UnixFs };
        let _ = run(&AddParams { format, wrap_with_directory, ..AddParams::default() }, events.collect());
    }
}
