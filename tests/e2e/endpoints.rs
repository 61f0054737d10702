//! The REST API by its other doors: pages, unix sockets, libp2p with and without the secret of the cluster.

use std::fs;
use std::process::Command;

use cluster_tests::process::{Mode, NodeKind, ProcessCluster, START_LIMIT, binary, free_port};
use cluster_tests::wait;

/// A peer that is nowhere.
const STRANGER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Runs a program; what it said, and whether it worked.
fn run(command: &mut Command) -> (bool, String) {
    let ran = command.output().unwrap();
    (ran.status.success(), [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}

fn curl(arguments: &[&str]) -> (bool, String) {
    run(Command::new("curl").args(["--silent", "--show-error", "--include", "--max-time", "30"]).args(arguments))
}

fn ctl(host: &str, flags: &[&str]) -> (bool, String) {
    let mut ctl = Command::new(binary("ipfs-cluster-ctl").unwrap());
    run(ctl.args(["--host", host]).args(flags).env_remove("CLUSTER_CREDENTIALS"))
}

/// The id in an answer to `GET /id`.
fn cluster_id(answer: &str) -> &str {
    let (_, rest) = answer.split_once("\"id\":\"").unwrap();
    rest.split_once('"').unwrap().0
}

async fn works(what: &str, attempt: impl Fn() -> (bool, String)) -> String {
    wait::until(what, START_LIMIT, || async {
        let (worked, said) = attempt();
        if worked { Ok(said) } else { Err(said) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_sockets_are_served_to_curl() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let socket = cluster.peers[peer].folder.join("door.sock");
    let listen = format!("{},/unix{}", cluster.api_address(peer), socket.display());
    cluster.set_variable(peer, "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", &listen);
    cluster.set_variable(peer, "CLUSTER_RESTAPI_CORSALLOWEDMETHODS", "GET,DELETE");
    cluster.set_variable(peer, "CLUSTER_RESTAPI_HTTPLOGFILE", "access.log");
    cluster.spawn_peer(peer).unwrap();
    let path = socket.to_str().unwrap().to_owned();
    let over_socket = works("the socket", || curl(&["--fail", "--unix-socket", &path, "http://localhost/id"])).await;
    assert!(over_socket.contains("\"peername\""), "{over_socket}");
    let (worked, said) = ctl(&format!("/unix{path}"), &["id"]);
    assert!(worked && said.contains(cluster_id(&over_socket)), "{said}");
    let (worked, said) = ctl(&format!("/unix{path}.not"), &["id"]);
    assert!(!worked && said.contains(&format!("cannot reach the cluster API at /unix{path}.not;")), "{said}");
    assert!(!curl(&["--unix-socket", &format!("{path}.not"), "http://localhost/id"]).0);
    let url = cluster.url(peer, "/pins/x");
    let preflight = |method: &str| {
        let wanted = format!("Access-Control-Request-Method: {method}");
        curl(&["-X", "OPTIONS", "-H", "Origin: https://page.example", "-H", &wanted, &url]).1
    };
    let allowed = preflight("DELETE");
    assert!(allowed.starts_with("HTTP/1.1 204 "), "{allowed}");
    assert!(allowed.contains("Access-Control-Allow-Origin: *\r\n"), "{allowed}");
    assert!(allowed.contains("Access-Control-Allow-Methods: DELETE\r\n"), "{allowed}");
    let refused = preflight("POST");
    assert!(refused.starts_with("HTTP/1.1 204 ") && !refused.contains("Access-Control-Allow"), "{refused}");
    // Who comes by the socket is asked for the password, too; and so is a page.
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
    cluster.set_variable(peer, "CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:swordfish");
    cluster.spawn_peer(peer).unwrap();
    let user = ["--basic-auth", "ann:swordfish", "--force-http", "id"];
    works("the socket again", || ctl(&format!("/unix{path}"), &user)).await;
    let (worked, said) = ctl(&format!("/unix{path}"), &["id"]);
    assert!(!worked && said.contains("unauthorized: no auth provided"), "{said}");
    let bare = curl(&["--unix-socket", &path, "http://localhost/id"]).1;
    assert!(bare.starts_with("HTTP/1.1 401 "), "{bare}");
    assert!(preflight("DELETE").starts_with("HTTP/1.1 204 "), "a preflight has no password");
    let page = curl(&["-X", "DELETE", "-H", "Origin: https://page.example", &url]).1;
    assert!(page.starts_with("HTTP/1.1 401 ") && !page.contains("Access-Control-Allow"), "{page}");
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
    let log = fs::read_to_string(cluster.peers[peer].folder.join("access.log")).unwrap();
    assert!(
        log.lines().any(|line| line.starts_with("127.0.0.1 - - [") && line.contains("\"OPTIONS /pins/x ")),
        "{log}"
    );
    assert!(log.contains("- - - [") && log.contains("\"GET /id HTTP/1.1\" 200 "), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_raft_mode_who_knows_the_secret_asks_over_the_swarm() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    let id = cluster.peers[peer].id().to_owned();
    let host = format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", cluster.swarm_port(peer));
    let secret = cluster.secret().to_owned();
    let said = works("an answer over libp2p", || ctl(&host, &["--secret", &secret, "id"])).await;
    assert!(said.contains(&id), "{said}");
    let (worked, said) = ctl(&host, &["--secret", &secret, "peers", "ls"]);
    assert!(worked && said.contains(&id), "{said}");
    let (worked, said) = ctl(&host, &["id"]);
    assert!(!worked && said.contains("over libp2p"), "without the secret: {said}");
    let (worked, said) = ctl(&host, &["--secret", &"ab".repeat(32), "id"]);
    assert!(!worked && said.contains("over libp2p"), "with another secret: {said}");
    let (worked, said) = ctl(&host.replace(&id, STRANGER), &["--secret", &secret, "id"]);
    assert!(!worked && said.contains("over libp2p"), "as another peer: {said}");
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_crdt_mode_a_host_of_its_own_is_asked_without_a_secret_but_with_the_password() {
    let mut cluster = ProcessCluster::start_in(Mode::Crdt, &[]).await.unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let other = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let identity = fs::read_to_string(cluster.peers[other].folder.join("identity.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    let port = free_port().unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    for (name, value) in [
        ("ID", identity["id"].as_str().unwrap()),
        ("PRIVATEKEY", identity["private_key"].as_str().unwrap()),
        ("LIBP2PLISTENMULTIADDRESS", &listen),
        ("BASICAUTHCREDENTIALS", "ann:swordfish"),
        ("HTTPLOGFILE", "access.log"),
    ] {
        cluster.set_variable(peer, &format!("CLUSTER_RESTAPI_{name}"), value);
    }
    cluster.spawn_peer(peer).unwrap();
    let host = format!("{listen}/p2p/{}", identity["id"].as_str().unwrap());
    let said = works("an answer over libp2p", || ctl(&host, &["--basic-auth", "ann:swordfish", "id"])).await;
    assert!(!said.contains(identity["id"].as_str().unwrap()), "the peer has its own id: {said}");
    let (worked, said) = ctl(&host, &["id"]);
    assert!(!worked && said.contains("unauthorized: no auth provided"), "{said}");
    for (flags, why) in [
        (&["--basic-auth", "ann:other", "id"][..], "unauthorized: access denied"),
        (&["--basic-auth", "ann:swordfish", "--secret", cluster.secret(), "id"], "cannot reach"),
        (&["--basic-auth", "ann:swordfish", "--secret", "swordfish", "id"], "the cluster secret must be 64 digits"),
    ] {
        let (worked, said) = ctl(&host, flags);
        assert!(!worked && said.contains(why), "{flags:?}: {said}");
    }
    let stranger = host.replace(identity["id"].as_str().unwrap(), STRANGER);
    let (worked, said) = ctl(&stranger, &["--basic-auth", "ann:swordfish", "id"]);
    assert!(!worked && said.contains("cannot reach"), "as another peer: {said}");
    // In this mode the network of the cluster does not serve it.
    let own = fs::read_to_string(cluster.peers[peer].folder.join("identity.json")).unwrap();
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let swarm = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", cluster.swarm_port(peer), own["id"].as_str().unwrap());
    let (worked, said) = ctl(&swarm, &["--basic-auth", "ann:swordfish", "--secret", cluster.secret(), "id"]);
    assert!(!worked && said.contains("serves no REST API over libp2p"), "{said}");
    // Where there is another host, that one is asked.
    let both = format!("{stranger},{host}");
    let (worked, said) = ctl(&both, &["--basic-auth", "ann:swordfish", "id"]);
    assert!(worked, "{said}");
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
    assert!(!cluster.log(peer).contains("swordfish"));
    let log = fs::read_to_string(cluster.peers[peer].folder.join("access.log")).unwrap();
    assert!(log.lines().any(|line| line.starts_with("12D3KooW") && line.contains(" - ann [")), "{log}");
}
