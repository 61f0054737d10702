//! Those who do not speak the language of a swarm, and one who does not know its secret.

use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_types::{GlobalPinInfo, Id};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::raw::cut;

/// What multistream begins with.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n";

/// Garbage for the swarm of the cluster and for the one of the embedded node.
pub(super) async fn garbage(cluster: &ProcessCluster) {
    let noise = |length| (0..length).map(|_| rand::random()).collect::<Vec<u8>>();
    let after_start = |rest: &[u8]| [MULTISTREAM, rest].concat();
    let inputs = [
        noise(1),
        noise(24),
        noise(100_000),
        vec![0; 10_000],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        after_start(&noise(10_000)),
        // Noise is agreed on; its handshake is garbage.
        after_start(&[b"\x07/noise\n".as_slice(), &noise(5_000)].concat()),
        // A line that never ends.
        after_start(&[0xff; 64]),
        after_start(&b"\x03na\n".repeat(2_000)),
    ];
    for port in [cluster.swarm_port(0), cluster.node_port(0)] {
        let talks = inputs.iter().map(|input| cut(port, input));
        futures::future::join_all(talks).await;
        // Some that never say a word, or half of one.
        let mut silent = Vec::new();
        for number in 0..100 {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            if number % 2 == 0 {
                drop(socket.write_all(&MULTISTREAM[..7]).await);
            }
            silent.push(socket);
        }
        // The others are still heard meanwhile: a question that needs them is answered by all.
        let cid = crate::client::inline_cid(1);
        let info: GlobalPinInfo = cluster.get(0, &format!("/pins/{cid}")).await.unwrap();
        assert!(info.peer_map.len() == 3 && info.peer_map.values().all(|peer| peer.error.is_empty()), "{info:?}");
    }
}

/// A peer with another secret is told why it cannot join, and the cluster goes on without it.
pub(super) async fn another_secret(cluster: &mut ProcessCluster) {
    let stranger = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let address = cluster.member_address(stranger).unwrap();
    let variables = [("CLUSTER_SECRET", "5a".repeat(32))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let said = cluster.refused_start(stranger, &["--bootstrap", &address], &variables).await.unwrap();
    for word in ["cannot join the cluster", "is the secret the same", "CLUSTER_SECRET", "addresses right", &address] {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
    assert!(!said.contains("5a5a"), "the secret is told: {said}");
    // Nor does anybody answer at an address where nobody is.
    let nobody = format!("/ip4/127.0.0.1/tcp/{}", cluster.swarm_port(stranger));
    let said = cluster.refused_start(stranger, &["--bootstrap", &nobody], &[]).await.unwrap();
    assert!(said.contains("cannot join the cluster") && said.contains("are those peers up"), "{said}");
    let known: Id = cluster.get(0, "/id").await.unwrap();
    assert_eq!(known.cluster_peers.len(), 3, "{known:?}");
}
