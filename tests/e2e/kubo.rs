//! Three real Kubo daemons behind three peers.

use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

/// Asks a Kubo.
async fn rpc(cluster: &ProcessCluster, kubo: &KuboDaemon, call: &str) -> Value {
    let answer = cluster.http(0).post(format!("{}/api/v0/{call}", kubo.url())).send().await.unwrap();
    let body = answer.text().await.unwrap();
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{call}: {error}: {body}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_added_to_one_kubo_is_pinned_by_the_cluster_on_the_others() {
    let mut kubos = Vec::new();
    for _ in 0..3 {
        let Some(kubo) = KuboDaemon::start().await else { return };
        kubos.push(kubo);
    }
    let nodes: Vec<NodeKind> = kubos.iter().map(|kubo| NodeKind::Kubo(kubo.rpc().to_owned())).collect();
    let cluster = ProcessCluster::start(&nodes).await.unwrap();
    let content: Vec<u8> = (0..500_000u32).flat_map(|number| (number * 7).to_le_bytes()).collect();
    let form = Form::new().part("file", Part::bytes(content).file_name("file"));
    let added =
        cluster.http(0).post(format!("{}/api/v0/add?pin=false", kubos[0].url())).multipart(form).send().await.unwrap();
    let added: Value = serde_json::from_str(&added.text().await.unwrap()).unwrap();
    let cid = added["Hash"].as_str().unwrap();
    let pinned = cluster.http(1).post(cluster.url(1, &format!("/pins/{cid}"))).send().await.unwrap();
    assert!(pinned.status().is_success(), "{}", pinned.text().await.unwrap());
    for kubo in &kubos {
        wait::until("the pin in Kubo's own list", SETTLE_LIMIT, || async {
            let listed = rpc(&cluster, kubo, "pin/ls?type=recursive").await;
            if listed["Keys"].get(cid).is_some() { Ok(()) } else { Err(listed) }
        })
        .await;
    }
    let gone = cluster.http(2).delete(cluster.url(2, &format!("/pins/{cid}"))).send().await.unwrap();
    assert!(gone.status().is_success());
    for kubo in &kubos {
        wait::until("the pin to go", SETTLE_LIMIT, || async {
            let listed = rpc(&cluster, kubo, "pin/ls?type=recursive").await;
            if listed["Keys"].get(cid).is_none() { Ok(()) } else { Err(listed) }
        })
        .await;
    }
}
