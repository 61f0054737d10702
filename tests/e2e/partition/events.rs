//! What peers tell of wishes that lost (`GET /events`): the same on all of them, read as it grows.

use std::collections::BTreeMap;

use cluster_tests::process::ProcessCluster;
use cluster_types::{Event, EventPlace};

/// The events of a cluster that were read so far.
#[derive(Debug, Default)]
pub(super) struct Events {
    last: Option<EventPlace>,
    read: usize,
}

impl Events {
    /// How many were read.
    pub(super) fn len(&self) -> usize {
        self.read
    }

    /// Reads what came in on all peers, which must be the same: no peer of these tests is so far behind that it gets the
    /// state instead of the log. By CID.
    pub(super) async fn read(&mut self, cluster: &ProcessCluster) -> BTreeMap<String, Vec<Event>> {
        let news = self.of_peer(cluster, 0).await;
        for peer in 1..cluster.peers.len() {
            assert_eq!(self.of_peer(cluster, peer).await, news, "peer {peer} tells something else than peer 0");
        }
        self.last = news.last_key_value().map(|(place, _)| *place).or(self.last);
        self.read += news.len();
        let mut by_cid = BTreeMap::<String, Vec<Event>>::new();
        for event in news.into_values() {
            by_cid.entry(event.cid.to_string()).or_default().push(event);
        }
        by_cid
    }

    async fn of_peer(&self, cluster: &ProcessCluster, peer: usize) -> BTreeMap<EventPlace, Event> {
        let mut news = BTreeMap::new();
        let mut before = String::new();
        loop {
            let url = cluster.url(peer, &format!("/events?limit={}{before}", Event::MAX_LIMIT));
            let answer = cluster.http(peer).get(url).send().await.unwrap().error_for_status().unwrap();
            let text = answer.text().await.unwrap();
            let page: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let (count, oldest) = (page.len(), page.iter().map(Event::at).min());
            news.extend(page.into_iter().map(|event| (event.at(), event)).filter(|(at, _)| Some(*at) > self.last));
            let Some(oldest) = oldest.filter(|oldest| count == Event::MAX_LIMIT && Some(*oldest) > self.last) else {
                return news;
            };
            before = format!("&before={oldest}");
        }
    }
}
