//! Listings read in parts: no pin is lost between two pages, whichever peer is asked.

use std::collections::BTreeSet;

use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_types::{Cid, GlobalPinInfo, Pin};
use serde::de::DeserializeOwned;

/// Pins of the test: not a multiple of any page's size.
const PINS: u8 = 23;

/// A CID that nobody has the content of.
fn cid(number: u8) -> Cid {
    Cid::from_bytes(&[&[1, 0x55, 0x12, 32][..], &[number.wrapping_mul(37); 32]].concat()).unwrap()
}

async fn lines<T: DeserializeOwned>(cluster: &ProcessCluster, peer: usize, path: &str) -> Vec<T> {
    let answer = cluster.http(peer).get(cluster.url(peer, path)).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    let body = answer.text().await.unwrap();
    body.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Reads a listing page by page, each from another peer.
async fn paged<T: DeserializeOwned>(
    cluster: &ProcessCluster,
    path: &str,
    limit: usize,
    cid: fn(&T) -> Cid,
) -> Vec<Cid> {
    searched(cluster, &format!("{path}?"), limit, cid).await
}

/// The same with a query before the page's.
async fn searched<T: DeserializeOwned>(
    cluster: &ProcessCluster,
    path: &str,
    limit: usize,
    cid: fn(&T) -> Cid,
) -> Vec<Cid> {
    let mut read: Vec<Cid> = Vec::new();
    for turn in 0.. {
        let after = read.last().map(|last| format!("&after={last}")).unwrap_or_default();
        let page: Vec<T> = lines(cluster, turn % 2, &format!("{path}&limit={limit}{after}")).await;
        assert!(page.len() <= limit, "{} items", page.len());
        read.extend(page.iter().map(cid));
        if page.len() < limit {
            break;
        }
    }
    read
}

async fn searches_find_what_the_whole_listing_holds(cluster: &ProcessCluster, whole: &[Cid]) {
    let odd: Vec<Cid> = whole.iter().filter(|one| (0..PINS).any(|n| n % 2 == 1 && cid(n) == **one)).copied().collect();
    let by_name: Vec<Cid> = (10..20).map(cid).collect();
    for limit in [3, 1_000] {
        assert_eq!(searched::<Pin>(cluster, "/allocations?meta-odd=1", limit, |pin| pin.cid).await, odd);
        assert_eq!(searched::<GlobalPinInfo>(cluster, "/pins?meta-odd=1", limit, |info| info.cid).await, odd);
        assert_eq!(searched::<Pin>(cluster, "/allocations?name-prefix=pin-1", limit, |pin| pin.cid).await, by_name);
        assert_eq!(
            searched::<GlobalPinInfo>(cluster, "/pins?name-prefix=pin-1", limit, |info| info.cid).await,
            by_name
        );
        let both = searched::<Pin>(cluster, "/allocations?name-prefix=pin-1&meta-odd=0", limit, |pin| pin.cid).await;
        let even = by_name.iter().filter(|one| !odd.contains(one)).collect::<BTreeSet<_>>();
        assert_eq!(both.iter().collect::<BTreeSet<_>>(), even);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_put_together_are_the_whole_listing() {
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    for number in 0..PINS {
        let path = format!("/pins/{}?replication=1&name=pin-{number:02}&meta-odd={}", cid(number), number % 2);
        let answer = cluster.http(0).post(cluster.url(0, &path)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
    cluster.wait_equal().await;
    let whole: Vec<Cid> = lines::<Pin>(&cluster, 0, "/allocations").await.iter().map(|pin| pin.cid).collect();
    assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), usize::from(PINS));
    for limit in [1, 4, usize::from(PINS), 1_000] {
        assert_eq!(paged::<Pin>(&cluster, "/allocations", limit, |pin| pin.cid).await, whole, "limit {limit}");
        assert_eq!(paged::<GlobalPinInfo>(&cluster, "/pins", limit, |info| info.cid).await, whole, "limit {limit}");
    }
    searches_find_what_the_whole_listing_holds(&cluster, &whole).await;
    // What a page begins behind need not be pinned any more.
    let gone = whole[6];
    let answer = cluster.http(0).delete(cluster.url(0, &format!("/pins/{gone}"))).send().await.unwrap();
    assert!(answer.status().is_success());
    cluster.wait_equal().await;
    for path in ["/allocations", "/pins"] {
        let rest: Vec<serde_json::Value> = lines(&cluster, 0, &format!("{path}?after={gone}")).await;
        let cids: Vec<String> = rest.iter().map(|item| item["cid"].as_str().unwrap().to_owned()).collect();
        assert_eq!(cids, whole[7..].iter().map(Cid::to_string).collect::<Vec<_>>(), "{path}");
        let answer = cluster.http(0).get(cluster.url(0, &format!("{path}?limit=0"))).send().await.unwrap();
        assert_eq!(answer.status(), 400);
    }
}
