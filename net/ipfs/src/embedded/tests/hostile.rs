//! Peers that take what they should not get.

use super::raw::Reads;
use super::*;
use crate::embedded::peer_of;
use crate::embedded::swarm::Command;

/// Nine strangers promise four large messages each, and fall silent after what is kept of everybody.
#[tokio::test]
async fn strangers_that_promise_large_messages_do_not_keep_blocks_out() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let mut promise = vec![0x80, 0x80, 0x80, 0x02];
    promise.resize(4 + wire::READ_PIECE + 1, 0);
    let mut strangers = Vec::new();
    for _ in 0..9 {
        let stranger = RawPeer::start(&here.tasks, silent()).await;
        here.node.connect(vec![stranger.address.clone()]).await.unwrap();
        for _ in 0..4 {
            stranger.send_and_hold(here.node.peer_id(), promise.clone()).await;
        }
        strangers.push(stranger);
    }
    let unasked = |_: &Peer| here.node.fetcher.bitswap.bodies_for(&there.node.peer_id()).available_permits();
    tokio::time::timeout(PATIENCE, async {
        while unasked(&here) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the strangers hold all there is for them");
    let (root, blocks) = file(20, 512 * 1024);
    there.node.put_blocks(blocks).await.unwrap();
    here.connect(&there).await;
    // Far less than the strangers could hold anything.
    tokio::time::timeout(Duration::from_secs(20), here.pin(root)).await.expect("in good time").unwrap();
    here.stop().await;
    there.stop().await;
}

/// Connects to a peer that nobody wants to stay connected to.
async fn connect_once(here: &Peer, stranger: &RawPeer) {
    let addresses = vec![stranger.address.clone()];
    let peer = peer_of(&stranger.address).unwrap();
    let connected = here.node.ask_swarm(|reply| Command::Connect { peer, addresses, remember: false, reply }).await;
    connected.unwrap().unwrap();
    assert_eq!(here.node.connected().await.unwrap(), [peer.to_string()]);
}

#[tokio::test]
async fn who_breaks_the_protocol_or_sends_what_nobody_asked_for_is_disconnected() {
    let here = Peer::start().await;
    let unasked = || {
        let payload = [0, 1].map(|number| raw_block(vec![number; 1024 * 1024]));
        let payload = payload.map(|block| wire::Payload { prefix: wire::prefix_of(&block.cid), data: block.data });
        Message { payload: payload.into(), ..Message::default() }.to_frame()
    };
    let harmless = wants(&[(raw_block("absent").cid, wire::WANT_HAVE)]);
    for (messages, stays) in [
        (vec![harmless], true),
        ((0..3).map(|_| unasked()).collect(), true),
        (vec![vec![0xff, 0xff, 0xff, 0x7f]], false),
        (vec![vec![3, 0xff, 0xff, 0xff]], false),
        ((0..17).map(|_| unasked()).collect(), false),
    ] {
        let mut stranger = RawPeer::start(&here.tasks, silent()).await;
        connect_once(&here, &stranger).await;
        let me = here.node.peer_id();
        stranger.send(me, messages.concat()).await;
        let block = raw_block("here");
        here.node.put_blocks(vec![block.clone()]).await.unwrap();
        let dropped = async {
            while !here.node.connected().await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        if stays {
            stranger.send(me, wants(&[(block.cid, wire::WANT_BLOCK)])).await;
            // An answer comes after all that was sent before was looked at, if the peer is still there.
            let answered =
                async { while stranger.got.recv().await.is_none_or(|message| message.payload.is_empty()) {} };
            tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
            assert!(!here.node.connected().await.unwrap().is_empty());
            let gone = Command::Disconnect { peer: peer_of(&stranger.address).unwrap() };
            drop(here.node.swarm.send(gone).await);
        }
        tokio::time::timeout(PATIENCE, dropped).await.expect("the connection is closed");
    }
    assert_eq!(here.store.len(), 1, "nothing that came was kept");
    here.stop().await;
}

#[tokio::test]
async fn an_answer_survives_the_end_of_its_stream() {
    let here = Peer::start().await;
    let blocks: Vec<_> = (0..20_u8).map(|number| raw_block(vec![number; 3000])).collect();
    here.node.put_blocks(blocks.clone()).await.unwrap();
    let mut raw = RawPeer::reading(&here.tasks, silent(), Reads::OneMessage).await;
    here.node.connect(vec![raw.address.clone()]).await.unwrap();
    for block in &blocks {
        // Asked once; the stream of the answer before was closed by the peer.
        raw.send(here.node.peer_id(), wants(&[(block.cid, wire::WANT_BLOCK)])).await;
        let message = tokio::time::timeout(PATIENCE, raw.got.recv()).await.expect("an answer").unwrap();
        assert_eq!(message.payload[0].data, block.data);
    }
    here.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_the_address() {
    let here = Peer::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let of_the_node = here.node.id().await.unwrap().addresses.remove(0);
    let of_the_node = of_the_node.iter().take(2).collect();
    let of_another = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap();
    for address in [of_the_node, of_another] {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { listen: vec![address], ..EmbeddedConfig::new(folder.path().join("key")) };
        let name = config.listen[0].to_string();
        let error = EmbeddedNode::start(config, Arc::new(MemBlocks::default()), &here.tasks).await.unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }) && error.to_string().contains(&name), "{error}");
    }
    here.stop().await;
}
