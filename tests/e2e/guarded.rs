//! A peer that asks for a password and speaks TLS, and ctl.

use std::fs;
use std::process::Command;

use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT, binary};
use cluster_tests::wait;

/// Runs ctl; what it said, and whether it worked.
fn ctl(cluster: &ProcessCluster, flags: &[&str]) -> (bool, String) {
    let mut ctl = Command::new(binary("ipfs-cluster-ctl").unwrap());
    let ran =
        ctl.args(["--host", &cluster.api_address(0)]).args(flags).env_remove("CLUSTER_CREDENTIALS").output().unwrap();
    (ran.status.success(), [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_knows_the_password_gets_in_and_only_over_tls() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(cluster.peers[peer].folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(cluster.peers[peer].folder.join("key.pem"), made.key_pair.serialize_pem()).unwrap();
    cluster.set_variable(peer, "CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:swordfish");
    cluster.set_variable(peer, "CLUSTER_RESTAPI_SSLCERTFILE", "cert.pem");
    cluster.set_variable(peer, "CLUSTER_RESTAPI_SSLKEYFILE", "key.pem");
    cluster.spawn_peer(peer).unwrap();
    let known = ["--no-check-certificate", "--basic-auth", "ann:swordfish", "peers", "ls"];
    wait::until("ctl to be let in", START_LIMIT, || async {
        let (worked, said) = ctl(&cluster, &known);
        if worked { Ok(()) } else { Err(said) }
    })
    .await;
    for (flags, text) in [
        (["--no-check-certificate", "--basic-auth", "ann:other", "id"].as_slice(), "unauthorized: access denied"),
        (&["--no-check-certificate", "--https", "id"], "unauthorized: no auth provided"),
        (&["--basic-auth", "ann:swordfish", "id"], "certificate"),
        (&["--basic-auth", "ann:swordfish", "--force-http", "id"], ""),
    ] {
        let (worked, said) = ctl(&cluster, flags);
        assert!(!worked && said.contains(text), "{flags:?}: {said}");
    }
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
    let log = cluster.log(peer);
    assert!(!log.contains("swordfish"), "{log}");
    assert!(log.contains("cluster_api::access") && log.contains("HTTP/1.1\" 401 "), "requests are logged: {log}");
}
