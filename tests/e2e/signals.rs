//! A peer as the manager of services sees it: what it says when it serves, and what each signal does.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use cluster_tests::process::{NodeKind, ProcessCluster};

/// The next message to the manager of services.
fn told(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_signal_stops_a_peer_in_order_and_the_third_at_once() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let path = cluster.folder().unwrap().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    cluster.set_variable(peer, "NOTIFY_SOCKET", path.to_str().unwrap());
    for signal in ["-INT", "-TERM", "-HUP"] {
        cluster.start_peer(peer).await.unwrap();
        assert_eq!(told(&socket).trim(), "READY=1");
        assert_eq!(cluster.stop_by(peer, &[signal]).await.unwrap(), Some(0), "{signal}: {}", cluster.log_tail(peer));
        assert_eq!(told(&socket).trim(), "STOPPING=1");
    }
    let log = cluster.log(peer);
    for text in ["** IPFS Cluster is READY **", "listening on:\n        /ip4/127.0.0.1/tcp/"] {
        assert!(log.contains(text), "{text}: {log}");
    }
    // A process that stands still finds all of them when it goes on.
    cluster.start_peer(peer).await.unwrap();
    let signals = ["-STOP", "-INT", "-TERM", "-CONT"];
    assert_eq!(cluster.stop_by(peer, &signals).await.unwrap(), Some(0), "{}", cluster.log_tail(peer));
    assert!(cluster.log(peer).contains("one more signal ends the process at once"), "{}", cluster.log_tail(peer));
    cluster.start_peer(peer).await.unwrap();
    let signals = ["-STOP", "-INT", "-TERM", "-HUP", "-CONT"];
    assert_eq!(cluster.stop_by(peer, &signals).await.unwrap(), Some(1), "{}", cluster.log_tail(peer));
    assert!(cluster.log(peer).contains("ended before the shutdown was complete"), "{}", cluster.log_tail(peer));
    // What it left is whole: it serves again.
    cluster.start_peer(peer).await.unwrap();
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
}
