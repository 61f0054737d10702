//! Clusters that begin with an imported pinset.

use std::collections::BTreeMap;

use super::*;
use crate::consensus::log::{FoundError, Founding, IMPORT_INDEX, found, import_changes};
use crate::ports::{LocalEffect, NodeIdRecord, StateView};

/// Imports `pins` in batches of `batch`, and founds a cluster of `members` on them.
async fn imported(own: PeerId, members: &[PeerId], pins: &[Pin], batch: usize) -> Disks {
    let disks = fresh_disks();
    for pins in pins.chunks(batch) {
        let (pins, nothing): (_, LocalEffect) = (pins.to_vec(), Arc::new(|_, _, _| None));
        let update = move |view: &dyn StateView| import_changes(view, pins, &nothing);
        disks.state.update(Box::new(update)).await.unwrap();
    }
    found(founding(&disks, own, members)).await.unwrap();
    disks
}

fn founding(disks: &Disks, own: PeerId, members: &[PeerId]) -> Founding<MemLog> {
    Founding {
        state: Arc::clone(&disks.state) as _,
        log: disks.log.clone(),
        record: Arc::clone(&disks.record) as _,
        own,
        members: members.iter().map(|peer| (*peer, Vec::new())).collect::<BTreeMap<_, _>>(),
        max_voters: 5,
        cluster_name: "test".to_owned(),
        chance: rand::make_rng(),
    }
}

fn pins(count: u32) -> Vec<Pin> {
    (0..count).map(pin).collect()
}

#[tokio::test(start_paused = true)]
async fn an_imported_pinset_is_a_cluster_of_one_that_others_join() {
    let net = MemNet::new(20);
    let own = PeerId::random();
    // The same pin twice, also in another batch: the last one counts.
    let renamed = Pin { options: PinOptions { name: "other".to_owned(), ..pin(3).options }, ..pin(3) };
    let given = [pins(10), vec![renamed.clone(), pin(3), renamed.clone()]].concat();
    let disks = imported(own, &[own], &given, 4).await;
    let founder = start(&net, own, disks, &[]).await.unwrap();
    assert_eq!(founder.consensus.report().await.unwrap().pins, 10);
    let stored = founder.disks.state.pin(pin(3).cid).await.unwrap().unwrap();
    assert_eq!(stored.options.name, "other");
    let receipt = founder.pin(100).await.unwrap();
    assert!(matches!(receipt.commit, Commit::Log { term: 2.., index } if index > IMPORT_INDEX), "{receipt:?}");

    let joiner = start(&net, PeerId::random(), fresh_disks(), &[own]).await.unwrap();
    joiner.pin(101).await.unwrap();
    assert_equal(&[&founder, &joiner]).await;
    assert_eq!(joiner.consensus.report().await.unwrap().pins, 12);

    let again = start(&net, own, founder.crash().await, &[]).await.unwrap();
    again.pin(102).await.unwrap();
    assert_equal(&[&again, &joiner]).await;
}

#[tokio::test(start_paused = true)]
async fn peers_that_import_the_same_become_one_cluster() {
    let net = MemNet::new(21);
    let peers: Vec<PeerId> = (0..3).map(|_| PeerId::random()).collect();
    let mut nodes = Vec::new();
    // The order of the file and the size of the batches do not matter.
    let mut given = pins(30);
    for (peer, batch) in peers.iter().zip([1, 7, 100]) {
        given.reverse();
        let disks = imported(*peer, &peers, &given, batch).await;
        for other in &peers {
            net.peer(*peer).remember(*other, net.peer(*other).own_addresses());
        }
        nodes.push(start(&net, *peer, disks, &[]).await.unwrap());
    }
    nodes[1].pin(200).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[2].consensus.report().await.unwrap().pins, 31);
}

#[tokio::test(start_paused = true)]
async fn whoever_imports_something_else_is_another_cluster() {
    let [one, two, three] = std::array::from_fn(|_| PeerId::random());
    let id = async |members: &[PeerId], pins: &[Pin]| {
        let disks = imported(one, members, pins, 10).await;
        disks.record.load().await.unwrap().unwrap()
    };
    let both = id(&[one, two], &pins(5)).await;
    assert_eq!(both, id(&[two, one], &pins(5)).await);
    assert_ne!(both, id(&[one, two], &pins(6)).await, "another pinset");
    assert_ne!(both, id(&[one, two, three], &pins(5)).await, "another member");
    let alone = id(&[one], &pins(5)).await;
    assert_ne!(alone, id(&[one], &pins(5)).await, "a founder's id is never used twice");
}

#[tokio::test]
async fn a_state_of_a_cluster_is_not_founded_once_more() {
    let (own, stranger) = (PeerId::random(), PeerId::random());
    let disks = imported(own, &[own], &pins(1), 1).await;
    let again = found(founding(&disks, own, &[own])).await;
    assert!(matches!(again, Err(FoundError::NotFresh)), "{again:?}");
    let wrong = found(founding(&fresh_disks(), own, &[stranger])).await;
    assert!(matches!(wrong, Err(FoundError::Stranger)), "{wrong:?}");
}
