//! The Kubo adapter against the contract of its port: over a false Kubo always, over a real one when there is one;
//! and against a Kubo that lies, hangs and breaks off.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_core::ports::{IpfsError, IpfsNode, PinProgress, PinRequest};
use cluster_core::testing::dag;
use cluster_core::testing::mem_ipfs::{IpfsCall, IpfsFault};
use cluster_core::testing::suite::ipfs::{self, IpfsFactory, IpfsFixture};
use cluster_core::watch;
use cluster_ipfs::kubo::{Kubo, KuboConfig};
use cluster_types::{Cid, Multiaddr, PinDepth};
use futures::StreamExt;
use parking_lot::Mutex;

#[expect(dead_code, unreachable_pub, reason = "the harness is shared with package cluster-tests")]
#[path = "../../../tests/src/kubo.rs"]
mod kubo_daemon;
mod mock_kubo;

use kubo_daemon::KuboDaemon;
use mock_kubo::{CHUNKED, END, MockKubo, Reply, ScriptedKubo, chunk, complete, refusal};

const PINNED: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

fn config(endpoint: &Multiaddr, pin_timeout: Duration) -> KuboConfig {
    KuboConfig { pin_timeout, ..KuboConfig::new(endpoint.clone()) }
}

/// A client that soon loses patience.
fn impatient(endpoint: &Multiaddr) -> Arc<Kubo> {
    let soon = Duration::from_millis(300);
    Kubo::new(KuboConfig { request_timeout: soon, unpin_timeout: soon, ..config(endpoint, soon) }).unwrap()
}

async fn pin(node: &dyn IpfsNode, cid: Cid) -> Result<(), IpfsError> {
    let request = PinRequest { cid, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
    node.pin(request, watch::Sender::new(PinProgress::default())).await
}

fn pinned_cid() -> Cid {
    PINNED.parse().unwrap()
}

fn listed(kind: &str) -> String {
    format!("{{\"Cid\":\"{PINNED}\",\"Type\":\"{kind}\"}}\n")
}

struct Mock;

#[async_trait]
impl IpfsFactory for Mock {
    async fn node(&self) -> IpfsFixture {
        let mock = MockKubo::start().await;
        let node = Kubo::new(config(&mock.address, Duration::from_millis(400))).unwrap();
        IpfsFixture { node, keep: Box::new(mock) }
    }
}

/// Hands a daemon that runs to the suite.
struct Real(Mutex<Option<KuboDaemon>>);

#[async_trait]
impl IpfsFactory for Real {
    async fn node(&self) -> IpfsFixture {
        let daemon = self.0.lock().take().expect("the suite asks once");
        // Kubo tells progress every half second.
        let node = Kubo::new(config(&daemon.rpc().parse().unwrap(), Duration::from_secs(2))).unwrap();
        IpfsFixture { node, keep: Box::new(daemon) }
    }
}

#[tokio::test]
async fn changes_of_what_the_node_holds_are_counted() {
    let mock = MockKubo::start().await;
    let node = Kubo::new(config(&mock.address, Duration::from_secs(5))).unwrap();
    let changes = node.changes();
    let leaf = dag::leaf(vec![7; 10]);
    node.put_blocks(vec![leaf.clone()]).await.unwrap();
    pin(&*node, leaf.cid).await.unwrap();
    node.pinned(leaf.cid).await.unwrap();
    node.unpin(leaf.cid).await.unwrap();
    assert_eq!(*changes.borrow(), 3, "a question changes nothing");
}

#[tokio::test]
async fn blocks_go_in_as_archives_and_one_by_one_where_those_are_refused() {
    let mock = MockKubo::start().await;
    let node = Kubo::new(config(&mock.address, Duration::from_secs(5))).unwrap();
    let leaf = dag::leaf(vec![7; 10]);
    let root = dag::directory(&[("leaf", leaf.cid)]);
    let calls = |call| mock.node.calls().iter().filter(|(made, _)| *made == call).count();
    node.put_blocks(vec![leaf, root.clone()]).await.unwrap();
    assert_eq!((calls(IpfsCall::ImportCar), calls(IpfsCall::PutBlocks)), (1, 0));

    mock.node.break_call(IpfsCall::ImportCar, IpfsFault::Refused("no such command".to_owned()));
    let others: Vec<_> = (0..3).map(|number| dag::leaf(vec![number; 100])).chain([dag::as_v0(&root)]).collect();
    node.put_blocks(others.clone()).await.unwrap();
    assert_eq!((calls(IpfsCall::ImportCar), calls(IpfsCall::PutBlocks)), (2, 4));
    for block in others {
        assert_eq!(node.block(block.cid).await.unwrap(), block.data);
    }
}

#[tokio::test]
async fn the_contract_holds_over_a_false_kubo() {
    assert_eq!(ipfs::run(&Mock).await, 21);
}

#[tokio::test]
async fn the_contract_holds_over_a_real_kubo() {
    let Some(daemon) = KuboDaemon::start().await else { return };
    let version = daemon.version().to_owned();
    assert_eq!(ipfs::run(&Real(Mutex::new(Some(daemon)))).await, 21, "with Kubo {version}");
}

#[tokio::test]
async fn a_real_kubo_fetches_from_the_origins_of_a_pin() {
    let Some(there) = KuboDaemon::start().await else { return };
    let here = KuboDaemon::start().await.expect("there is a Kubo");
    let patience = Duration::from_secs(20);
    let there_node = Kubo::new(config(&there.rpc().parse().unwrap(), patience)).unwrap();
    let here_node = Kubo::new(config(&here.rpc().parse().unwrap(), patience)).unwrap();

    let leaf = dag::leaf(vec![7; 1024 * 1024]);
    let root = dag::directory(&[("leaf", leaf.cid)]);
    there_node.put_blocks(vec![root.clone(), leaf.clone()]).await.unwrap();
    let id = there_node.id().await.unwrap();
    assert!(!id.addresses.is_empty());

    let request = PinRequest { cid: root.cid, depth: PinDepth(2), origins: id.addresses.clone(), update_from: None };
    here_node.pin(request, watch::Sender::new(PinProgress::default())).await.unwrap();
    assert_eq!(here_node.pinned(root.cid).await.unwrap(), Some(PinDepth::RECURSIVE), "Kubo knows no other depth");
    assert_eq!(here_node.connected().await.unwrap(), vec![id.id]);
    drop(there);
    assert_eq!(here_node.block(leaf.cid).await.unwrap(), leaf.data);
}

#[tokio::test]
async fn a_real_kubo_is_quoted_and_missed() {
    let Some(mut daemon) = KuboDaemon::start().await else { return };
    let node = Kubo::new(config(&daemon.rpc().parse().unwrap(), Duration::from_secs(2))).unwrap();
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ";
    let error = node.connect(vec![nobody.parse().unwrap()]).await.unwrap_err();
    assert!(matches!(error, IpfsError::Refused { .. }));
    let text = error.to_string();
    let begin = "IPFS error (swarm/connect?arg=%2Fip4%2F127.0.0.1%2Ftcp%2F1%2Fp2p%2FQma";
    assert!(text.starts_with(begin) && text.contains("). Code: 500. Message: connect QmaCp"), "{text}");

    daemon.kill();
    assert!(matches!(node.id().await, Err(IpfsError::Unreachable { .. })));
    assert!(matches!(node.pins().next().await, Some(Err(IpfsError::Unreachable { .. }))));
}

#[tokio::test]
async fn a_listing_counts_only_with_its_end() {
    let line = listed("recursive");
    let cut_in_a_chunk = format!("{CHUNKED}{}5b\r\n{}", chunk(&line), &line[..20]);
    let no_mark = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{line}");
    let short = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{line}");
    let trailer = format!("{CHUNKED}{}0\r\nX-Stream-Error: context canceled\r\n\r\n", chunk(&line));
    let message = format!("{line}{{\"Message\":\"context canceled\",\"Code\":0,\"Type\":\"error\"}}\n");
    for (what, broken, is_quoted) in [
        ("it ends between two chunks", Reply::Close(format!("{CHUNKED}{}", chunk(&line))), false),
        ("it ends within a chunk", Reply::Close(cut_in_a_chunk), false),
        ("it ends with the connection", Reply::Close(no_mark), false),
        ("it is shorter than it said", Reply::Close(short), false),
        ("the trailer names an error", Reply::Close(trailer), true),
        ("an error is among the pins", complete(&message), true),
        ("it stops but does not end", Reply::Hold(format!("{CHUNKED}{}", chunk(&line))), false),
        ("a line is cut", complete(&format!("{line}{{\"Cid\":\"baf")), false),
        ("a CID is none", complete(&format!("{line}{{\"Cid\":\"x\",\"Type\":\"recursive\"}}\n")), false),
        ("a pin is of another kind", complete(&format!("{line}{}", listed("indirect"))), false),
    ] {
        // The listing of direct pins is sound, so that nothing but the broken one can be the error.
        let sound = Reply::Close(format!("{CHUNKED}{END}"));
        let script = move |path: &str| if path.contains("type=direct") { sound.clone() } else { broken.clone() };
        let kubo = ScriptedKubo::start(script).await;
        let pins: Vec<_> = impatient(&kubo.address).pins().collect().await;
        let [Ok(first), Err(error)] = pins.as_slice() else { panic!("{what}: {pins:?}") };
        assert_eq!(*first, (pinned_cid(), PinDepth::RECURSIVE), "{what}");
        assert_eq!(matches!(error, IpfsError::Refused { .. }), is_quoted, "{what}: {error}");
        assert_eq!(error.to_string().contains("Message: context canceled"), is_quoted, "{what}: {error}");
    }
}

#[tokio::test]
async fn a_listing_that_is_complete_has_both_kinds() {
    let kubo = ScriptedKubo::start(|path| {
        let kind = if path.contains("type=direct") { "direct" } else { "recursive" };
        complete(&listed(kind))
    });
    let kubo = kubo.await;
    let pins: Vec<_> = impatient(&kubo.address).pins().map(Result::unwrap).collect().await;
    assert_eq!(pins, vec![(pinned_cid(), PinDepth::RECURSIVE), (pinned_cid(), PinDepth::DIRECT)]);
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let endless = format!("{CHUNKED}{}", chunk(&"x".repeat(300_000)));
    let kubo = ScriptedKubo::start(move |_| Reply::Hold(endless.clone())).await;
    let error = impatient(&kubo.address).pins().next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("a line is longer than"), "{error}");
}

/// A Kubo on which nothing is pinned, and which answers `pin/add` with `answer`.
async fn pinning(answer: Reply) -> ScriptedKubo {
    ScriptedKubo::start(move |path| {
        if path.starts_with("pin/ls") { refusal(&format!("path '{PINNED}' is not pinned")) } else { answer.clone() }
    })
    .await
}

#[tokio::test]
async fn a_pin_counts_only_when_kubo_names_it() {
    let pinned = format!("{{\"Pins\":[\"{PINNED}\"]}}\n");
    let progress = "{\"Progress\":7}\n";
    let kubo = pinning(complete(&format!("{{}}\n{progress}{pinned}"))).await;
    pin(impatient(&kubo.address).as_ref(), pinned_cid()).await.unwrap();

    let other = pinned.replace(PINNED, "bafkqaaa");
    let trailer = format!("{CHUNKED}{}0\r\nX-Stream-Error: block was not found\r\n\r\n", chunk(&pinned));
    let message = "{\"Message\":\"block was not found\",\"Code\":0,\"Type\":\"error\"}\n";
    for (what, broken, is_quoted) in [
        ("another pin is named", complete(&other), false),
        ("no pin is named", complete(progress), false),
        ("it is empty", Reply::Close(format!("{CHUNKED}{END}")), false),
        ("the end is missing", Reply::Close(format!("{CHUNKED}{}", chunk(&pinned))), false),
        ("the trailer names an error", Reply::Close(trailer), true),
        ("an error comes after the 200", complete(&format!("{progress}{message}")), true),
    ] {
        let kubo = pinning(broken).await;
        let error = pin(impatient(&kubo.address).as_ref(), pinned_cid()).await.expect_err(what);
        let quoted = error.to_string().ends_with("Code: 200. Message: block was not found");
        assert_eq!(quoted, is_quoted, "{what}: {error}");
        assert_eq!(matches!(error, IpfsError::BadAnswer { .. }), !is_quoted, "{what}: {error}");
    }
}

#[tokio::test]
async fn a_pin_that_does_not_grow_is_given_up() {
    let line = chunk("{\"Progress\":3}\n");
    // The number stays the same however often it is said.
    let kubo = pinning(Reply::Hold(format!("{CHUNKED}{line}{line}{line}"))).await;
    let error = pin(impatient(&kubo.address).as_ref(), pinned_cid()).await.unwrap_err();
    assert!(matches!(error, IpfsError::Stalled { blocks: 3, .. }), "{error}");
    let kubo = pinning(Reply::Hold(String::new())).await;
    let error = pin(impatient(&kubo.address).as_ref(), pinned_cid()).await.unwrap_err();
    assert!(matches!(error, IpfsError::Stalled { blocks: 0, .. }), "{error}");
}

#[tokio::test]
async fn a_question_without_answer_is_given_up_and_the_node_is_still_there() {
    let kubo = ScriptedKubo::start(|_| Reply::Hold(String::new())).await;
    let node = impatient(&kubo.address);
    assert!(matches!(node.id().await, Err(IpfsError::BadAnswer { .. })));
    assert!(matches!(node.unpin(pinned_cid()).await, Err(IpfsError::BadAnswer { .. })));
    assert!(matches!(node.pinned(pinned_cid()).await, Err(IpfsError::BadAnswer { .. })));
    let kubo = ScriptedKubo::start(|_| Reply::Hold(format!("{CHUNKED}{}", chunk("{\"RepoSize\":")))).await;
    assert!(matches!(impatient(&kubo.address).repo_stat().await, Err(IpfsError::BadAnswer { .. })));
}

#[tokio::test]
async fn a_block_that_is_wrong_or_endless_is_refused() {
    let leaf = dag::leaf("right");
    let kubo = ScriptedKubo::start(|_| complete("wrong")).await;
    let error = impatient(&kubo.address).block(leaf.cid).await.unwrap_err();
    assert!(matches!(error, IpfsError::BadBlock { .. }), "{error}");
    let big = "x".repeat(3 * 1024 * 1024);
    let kubo = ScriptedKubo::start(move |_| complete(&big)).await;
    let error = Kubo::new(KuboConfig::new(kubo.address.clone())).unwrap().block(leaf.cid).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn garbage_that_cannot_be_removed_is_named() {
    let lines = format!("{{\"Key\":{{\"/\":\"{PINNED}\"}}}}\n{{\"Key\":null,\"Error\":\"disk on fire\"}}\n");
    let end = "0\r\nX-Stream-Error: encountered errors during gc run\r\n\r\n";
    let answer = Reply::Close(format!("{CHUNKED}{}{end}", chunk(&lines)));
    let kubo = ScriptedKubo::start(move |_| answer.clone()).await;
    let removed = impatient(&kubo.address).collect_garbage().await.unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!((removed[0].key, removed[0].error.as_str()), (Some(pinned_cid()), ""));
    assert_eq!((removed[1].key, removed[1].error.as_str()), (None, "disk on fire"));
}

#[tokio::test]
async fn an_answer_that_is_not_of_kubo_is_quoted() {
    let page = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\nConnection: close\r\n\r\noops\n";
    let kubo = ScriptedKubo::start(move |_| Reply::Close(page.to_owned())).await;
    let error = impatient(&kubo.address).repo_stat().await.unwrap_err();
    assert_eq!(error.to_string(), "IPFS request failed (is it running?) (repo/stat?size-only=true). Code 502: oops");
}

#[tokio::test]
async fn unpinning_can_be_switched_off() {
    let kubo = MockKubo::start().await;
    let locked = KuboConfig { unpin_disable: true, ..KuboConfig::new(kubo.address.clone()) };
    let error = Kubo::new(locked).unwrap().unpin(pinned_cid()).await.unwrap_err();
    assert_eq!(error.to_string(), "ipfs unpinning is disallowed by configuration on this peer");
}

#[tokio::test]
async fn a_node_that_is_gone_is_soon_left_alone() {
    let kubo = ScriptedKubo::start(|_| complete("{}")).await;
    let address = kubo.address.clone();
    drop(kubo);
    let node = impatient(&address);
    let mut rested = 0;
    for _ in 0..40 {
        let Err(IpfsError::Unreachable { cause, .. }) = node.repo_stat().await else { panic!("nobody is there") };
        rested += usize::from(cause.to_string().contains("the next one is made within a second"));
    }
    assert!(rested > 0, "after eleven failures most requests fail at once");
}
