//! Numbers for Prometheus: what a scrape of a real peer shows, and that it moves with what happens.

use std::collections::BTreeMap;

use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT, free_port};
use cluster_tests::wait;
use reqwest::multipart::{Form, Part};

/// Content that nobody has.
const NOWHERE: &str = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
/// Bytes of the upload: some blocks.
const UPLOAD: usize = 700_000;

/// A number by its name, and what is wanted of it.
type Wanted<'a> = (&'a str, fn(f64) -> bool);

/// The numbers by name and labels, from one scrape.
async fn scrape(url: &str) -> Result<BTreeMap<String, f64>, String> {
    let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
    let text = answer.error_for_status().map_err(|error| error.to_string())?.text().await.unwrap();
    let numbers = text.lines().filter(|line| !line.starts_with('#'));
    Ok(numbers
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect())
}

/// Waits until the numbers of these names hold what is wanted of them.
async fn shows(url: &str, wanted: &[Wanted<'_>]) -> BTreeMap<String, f64> {
    wait::until("the numbers", SETTLE_LIMIT, || async {
        let numbers = scrape(url).await?;
        let wrong = wanted.iter().find(|(name, holds)| !numbers.get(*name).is_some_and(|value| holds(*value)));
        match wrong {
            None => Ok(numbers),
            Some((name, _)) => Err(format!("{name} is {:?} in {numbers:?}", numbers.get(*name))),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_shows_what_happens_and_a_taken_port_stops_the_start() {
    let mut cluster = ProcessCluster::empty().unwrap();
    let peer = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let port = free_port().unwrap();
    let endpoint = format!("/ip4/127.0.0.1/tcp/{port}");
    cluster.set_variable(peer, "CLUSTER_METRICS_ENABLESTATS", "true");
    cluster.set_variable(peer, "CLUSTER_METRICS_PROMETHEUSENDPOINT", &endpoint);
    cluster.start_peer(peer).await.unwrap();
    assert!(!cluster.log(peer).contains("observations.metrics"), "{}", cluster.log(peer));
    let url = format!("http://127.0.0.1:{port}/metrics");

    let begin = shows(
        &url,
        &[
            ("ipfscluster_pins", |pins| pins == 0.0),
            ("ipfscluster_pins_pin_add", |adds| adds == 0.0),
            ("ipfscluster_pins_pin_add_errors", |errors| errors == 0.0),
            ("ipfscluster_blocks_put", |puts| puts == 0.0),
            ("ipfscluster_blocks_put_errors", |errors| errors == 0.0),
            ("ipfscluster_informer_disk", |bytes| bytes > 0.0),
            ("ipfscluster_quorum", |quorum| quorum == 1.0),
            ("ipfscluster_role{role=\"leader\"}", |leads| leads == 1.0),
            ("ipfscluster_members", |members| members == 1.0),
            ("ipfscluster_raft_term", |term| term > 0.0),
            ("ipfscluster_store_flushes_total", |flushes| flushes > 0.0),
            ("process_resident_memory_bytes", |bytes| bytes > 1e6),
            ("process_open_fds", |files| files > 10.0),
        ],
    )
    .await;

    let content: Vec<u8> = (0..UPLOAD / 4).flat_map(|number| (number as u32).to_le_bytes()).collect();
    let form = Form::new().part("file", Part::bytes(content).file_name("numbers"));
    let added = cluster.http(peer).post(cluster.url(peer, "/add")).multipart(form).send().await.unwrap();
    assert!(added.status().is_success(), "{added:?}");
    added.bytes().await.unwrap();
    let pinned = shows(
        &url,
        &[
            ("ipfscluster_pins", |pins| pins == 1.0),
            ("ipfscluster_pins_ipfs_pins", |pins| pins == 1.0),
            ("ipfscluster_pins_pin_queued", |pins| pins == 0.0),
            ("ipfscluster_pins_pin_add", |adds| adds >= 1.0),
            ("ipfscluster_blocks_put", |puts| puts >= 1.0),
            ("ipfscluster_blocks_added", |blocks| blocks >= 3.0),
            ("ipfscluster_blocks_added_size", |bytes| bytes > UPLOAD as f64),
        ],
    )
    .await;
    for name in ["applied_index", "committed_index", "store_flushes_total", "rest_requests_total{status=\"2xx\"}"] {
        let name = format!("ipfscluster_{name}");
        assert!(pinned[&name] > begin[&name], "{name} was {} and is {}", begin[&name], pinned[&name]);
    }

    // What cannot be found is under way, and no longer when it is not wanted any more.
    let pin = cluster.url(peer, &format!("/pins/{NOWHERE}"));
    assert!(cluster.http(peer).post(&pin).send().await.unwrap().status().is_success());
    shows(&url, &[("ipfscluster_pins", |pins| pins == 2.0), ("ipfscluster_pins_pinning", |pins| pins == 1.0)]).await;
    assert!(cluster.http(peer).delete(&pin).send().await.unwrap().status().is_success());
    shows(&url, &[("ipfscluster_pins", |pins| pins == 1.0), ("ipfscluster_pins_pinning", |pins| pins == 0.0)]).await;

    // The flag asks for the same as the key, and a second peer finds the port taken.
    let other = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let variables = [("CLUSTER_METRICS_PROMETHEUSENDPOINT", endpoint.as_str())];
    let said = cluster.refused_start(other, &["--stats"], &variables).await.unwrap();
    assert!(said.contains("observations.metrics.prometheus_endpoint") && said.contains(&endpoint), "{said}");
    assert_eq!(cluster.stop(peer).await.unwrap(), Some(0), "{}", cluster.log_tail(peer));
    assert!(!cluster.log(peer).contains("did not stop in time"), "{}", cluster.log_tail(peer));
    assert!(scrape(&url).await.is_err(), "nobody is there any more");
}
