//! A block store that fails.

use cluster_types::ErrorClass;

use super::*;

#[tokio::test]
async fn a_damaged_block_is_fetched_anew() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let (root, blocks) = file(10, 1024);
    for peer in [&here, &there] {
        peer.node.put_blocks(blocks.clone()).await.unwrap();
    }
    here.store.damage(&root);
    here.connect(&there).await;
    here.pin(root).await.unwrap();
    assert_eq!(here.node.block(root).await.unwrap(), there.node.block(root).await.unwrap());
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn an_unreadable_block_fails_its_own_pin_and_no_other() {
    let here = Peer::start().await;
    let (bad, blocks) = file(10, 1024);
    let (good, others) = file(10, 512);
    here.node.put_blocks([blocks, others].concat()).await.unwrap();
    here.store.make_unreadable(&bad);
    let error = here.pin(bad).await.unwrap_err();
    // Not `Unreachable`, which says that there is no node, and stops all pins.
    assert!(matches!(error, IpfsError::Store { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    here.pin(good).await.unwrap();
    here.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_here_for_others() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let blocks: Vec<_> = (0..9_u8).map(|number| raw_block(vec![number; 2000])).collect();
    here.node.put_blocks(blocks.clone()).await.unwrap();
    here.store.make_unreadable(&blocks[0].cid);
    there.connect(&here).await;
    let bad = there.node.block(blocks[0].cid);
    let good = async {
        for block in &blocks[1..] {
            assert_eq!(there.node.block(block.cid).await.unwrap(), block.data);
        }
    };
    tokio::select! {
        _ = bad => panic!("nobody can read it"),
        () = good => {}
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_full_disk_ends_a_fetch_and_is_named() {
    let (here, there) = (Peer::start().await, Peer::start().await);
    let (root, blocks) = file(10, 1024);
    there.node.put_blocks(blocks).await.unwrap();
    here.store.fill_up();
    here.connect(&there).await;
    // Long before the fetch could be taken for stalled.
    let error = tokio::time::timeout(PATIENCE / 2, here.pin(root)).await.expect("in good time").unwrap_err();
    assert!(matches!(error, IpfsError::Store { .. }), "{error}");
    assert!(cluster_types::ErrorChain(&error).to_string().contains("no space left"), "{error:?}");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_followed_just_now_is_not_refused() {
    let here = Peer::over(Arc::new(MemBlocks::default()), Duration::from_millis(200)).await;
    let (root, blocks) = file(10, 1024);
    let error = here.node.resolve(&format!("/ipfs/{root}/name")).await.unwrap_err();
    assert!(matches!(error, IpfsError::Stalled { .. }), "{error}");
    here.node.put_blocks(blocks).await.unwrap();
    let error = here.node.resolve(&format!("/ipfs/{root}/name")).await.unwrap_err();
    assert!(matches!(error, IpfsError::Refused { .. }), "{error}");
    here.stop().await;
}

#[tokio::test]
async fn an_archive_that_does_not_come_is_given_up() {
    let here = Peer::over(Arc::new(MemBlocks::default()), Duration::from_millis(200)).await;
    for (sender, reason) in [
        (futures::stream::pending().boxed(), "nothing came"),
        (futures::stream::iter([Err(std::io::Error::other("the sender is gone"))]).boxed(), "the sender is gone"),
    ] {
        let importing = tokio::time::timeout(PATIENCE, here.node.import_car(sender));
        let error = importing.await.expect("it ends").unwrap_err();
        assert!(matches!(error, IpfsError::Refused { .. }) && error.to_string().contains(reason), "{error}");
    }
    here.stop().await;
}
