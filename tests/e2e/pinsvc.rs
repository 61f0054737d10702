//! The pinning service of a cluster, asked by the real `ipfs pin remote` and by plain HTTP.

use std::fs;
use std::process::Output;

use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use serde_json::{Value, json};

/// Users and their passwords.
const USERS: &str = "ann:swordfish,bob:mackerel";

/// A cluster of so many peers without Kubo whose pinning services ask for these users, if any.
async fn cluster_for(peers: usize, users: Option<&str>) -> ProcessCluster {
    let mut cluster = ProcessCluster::empty().unwrap();
    for _ in 0..peers {
        let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
        if let Some(users) = users {
            cluster.set_variable(peer, "CLUSTER_PINSVCAPI_BASICAUTHCREDENTIALS", users);
        }
        cluster.start_peer(peer).await.unwrap();
    }
    cluster
}

/// A token of a user.
async fn token(cluster: &ProcessCluster, user: &str) -> String {
    let password = USERS.split(',').find_map(|pair| pair.split_once(':').filter(|(name, _)| *name == user)).unwrap().1;
    let request = reqwest::Client::new().post(format!("{}/token", cluster.pinning_url(0)));
    let answer = request.basic_auth(user, Some(password)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().await.unwrap()["token"].as_str().unwrap().to_owned()
}

/// The command line of a Kubo.
struct Remote<'a>(&'a KuboDaemon);

impl Remote<'_> {
    fn run(&self, words: &[&str]) -> Output {
        self.0.command().args(words).output().unwrap()
    }

    /// What a command says that must work.
    fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "ipfs {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The CID of a new file.
    fn add(&self, name: &str) -> String {
        let path = self.0.folder().join(name);
        fs::write(&path, format!("the content of {name}\n")).unwrap();
        self.say(&["add", "-Q", "--pin=false", path.to_str().unwrap()]).trim().to_owned()
    }

    /// The CIDs and names that a service lists.
    fn list(&self, words: &[&str]) -> Vec<(String, String)> {
        let all = ["pin", "remote", "ls", "--enc=json"];
        let said = self.say(&[&all[..], words].concat());
        let items = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        items.map(|item| (text(&item, "Cid"), text(&item, "Name"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipfs_pin_remote_keeps_finds_and_removes_what_it_pinned() {
    let Some(kubo) = KuboDaemon::start().await else { return };
    let cluster = cluster_for(2, Some(USERS)).await;
    cluster.wait_metrics(2).await;
    let remote = Remote(&kubo);
    for user in ["ann", "bob"] {
        let key = token(&cluster, user).await;
        remote.say(&["pin", "remote", "service", "add", user, &cluster.pinning_url(0), &key]);
    }
    remote.say(&["pin", "remote", "service", "add", "nobody", &cluster.pinning_url(0), "no token"]);
    let all = "--status=queued,pinning,pinned,failed";
    let (first, second) = (remote.add("first"), remote.add("second"));

    // Waits until the cluster has fetched it from this very Kubo.
    let said = remote.say(&["pin", "remote", "add", "--service=ann", "--name=one", &first]);
    assert!(said.contains("pinned") && said.contains(&first), "{said}");
    let status: Value = cluster.get(1, &format!("/pins/{first}")).await.unwrap();
    let says_pinned = |info: &Value| info["status"] == "pinned";
    assert!(status["peer_map"].as_object().unwrap().values().any(says_pinned), "{status}");
    assert_eq!(status["name"], "one");
    remote.say(&["pin", "remote", "add", "--service=ann", "--background", "--name=two", &second]);
    wait::until("the one in the background to be pinned", SETTLE_LIMIT, || async {
        let pinned = remote.list(&["--service=ann", "--name=two"]);
        if pinned == [(second.clone(), "two".to_owned())] { Ok(()) } else { Err(format!("{pinned:?}")) }
    })
    .await;
    let newest_first = [(second.clone(), "two".to_owned()), (first.clone(), "one".to_owned())];
    assert_eq!(remote.list(&["--service=ann", all]), newest_first);
    assert_eq!(remote.list(&["--service=ann", &format!("--cid={first}")]), newest_first[1..]);
    assert_eq!(remote.list(&["--service=ann", "--status=failed"]), []);
    assert_eq!(remote.list(&["--service=bob", all]), [], "what another user pinned is nobody else's business");
    let refused = remote.run(&["pin", "remote", "ls", "--service=nobody"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("UNAUTHORIZED") && said.contains("invalid token"), "{said}");

    // Two users, and one of them twice, for the same content: it stays until the last of them gives it up.
    remote.say(&["pin", "remote", "add", "--service=bob", "--name=of bob", &first]);
    remote.say(&["pin", "remote", "add", "--service=ann", "--name=again", &first]);
    assert_eq!(remote.list(&["--service=ann", all, &format!("--cid={first}")]).len(), 2);
    let several = remote.run(&["pin", "remote", "rm", "--service=ann", &format!("--cid={first}")]);
    assert!(!several.status.success(), "several are removed by --force only");
    remote.say(&["pin", "remote", "rm", "--service=ann", "--name=again"]);
    assert_eq!(remote.list(&["--service=ann", all, &format!("--cid={first}")]), newest_first[1..]);
    remote.say(&["pin", "remote", "rm", "--service=ann", &format!("--cid={first}"), "--force"]);
    assert_eq!(remote.list(&["--service=ann", all]), newest_first[..1]);
    let kept: Value = cluster.get(0, &format!("/allocations/{first}")).await.unwrap();
    assert_eq!((&kept["name"], &kept["requests"][0]["user"]), (&json!("of bob"), &json!("bob")));
    remote.say(&["pin", "remote", "rm", "--service=bob", "--name=of bob"]);
    let gone = cluster.http(0).get(cluster.url(0, &format!("/allocations/{first}"))).send().await.unwrap();
    assert_eq!(gone.status(), 404);

    // More than a page.
    for number in 0..23 {
        let cid = remote.add(&format!("file {number}"));
        remote.say(&["pin", "remote", "add", "--service=bob", "--background", &format!("--name=file {number}"), &cid]);
    }
    let listed = remote.list(&["--service=bob", all]);
    assert_eq!(listed.len(), 23, "{listed:?}");
    assert_eq!(listed[0].1, "file 22");
    assert!(remote.say(&["pin", "remote", "service", "ls", "--stat"]).contains("ann"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_kept_by_every_peer_and_replaced_and_withdrawn() {
    let cluster = cluster_for(3, None).await;
    let http = reqwest::Client::new();
    let url = |peer: usize, path: &str| format!("{}{path}", cluster.pinning_url(peer));
    let post = async |path: &str, body: Value| {
        let answer = http.post(url(0, path)).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let cids = [
        "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq",
    ];
    let (status, first) = post("/pins", json!({"cid": cids[0], "name": "first", "meta": {"k": "v"}})).await;
    assert_eq!(status, 202);
    // Nobody has the content; whether a node is asked for it already is a matter of moments.
    assert!(["queued", "pinning"].contains(&first["status"].as_str().unwrap()), "{first}");
    let id = first["requestid"].as_str().unwrap().to_owned();
    // Every peer knows it, by its id and by its CID.
    for peer in 0..3 {
        for name in [id.as_str(), cids[0]] {
            let told = wait::until("the request on every peer", SETTLE_LIMIT, || async {
                let answer = http.get(url(peer, &format!("/pins/{name}"))).send().await.unwrap();
                let (status, told) = (answer.status(), answer.json::<Value>().await.unwrap());
                if status == 200 { Ok(told) } else { Err(told) }
            })
            .await;
            assert_eq!((&told["requestid"], &told["pin"]["meta"]), (&json!(id), &json!({"k": "v"})));
        }
    }
    // By its own CID, and then by another one.
    let (status, renamed) = post(&format!("/pins/{id}"), json!({"cid": cids[0], "name": "renamed"})).await;
    assert_eq!((status, &renamed["pin"]), (202, &json!({"cid": cids[0], "name": "renamed"})));
    assert_eq!(http.get(url(0, &format!("/pins/{id}"))).send().await.unwrap().status(), 404);
    let id = renamed["requestid"].as_str().unwrap().to_owned();
    let (status, other) = post(&format!("/pins/{id}"), json!({"cid": cids[1], "meta": {"a": "b"}})).await;
    assert_eq!((status, &other["pin"]), (202, &json!({"cid": cids[1], "meta": {"a": "b"}})));
    let pins: Vec<String> = cluster.pins(0).await.unwrap().into_keys().collect();
    assert_eq!(pins, [cids[1]], "the former one went with its last request");
    // Pinned by other means as well, it stays without the request.
    let pinned = cluster.http(0).post(cluster.url(0, &format!("/pins/{}?name=plain", cids[1]))).send().await.unwrap();
    assert_eq!(pinned.status(), 200);
    let id = other["requestid"].as_str().unwrap();
    let removed = http.delete(url(0, &format!("/pins/{id}"))).send().await.unwrap();
    assert_eq!((removed.status().as_u16(), removed.text().await.unwrap()), (202, String::new()));
    let kept: Value = cluster.get(0, &format!("/allocations/{}", cids[1])).await.unwrap();
    assert_eq!((&kept["name"], kept.get("requests")), (&json!("plain"), None));
}
