//! The `Gossip` port on gossipsub.
//!
//! Signatures are checked and duplicates dropped by gossipsub; the swarm's actor hands over what is left.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{Gossip, GossipError, GossipMessage, Topic};
use tokio::sync::broadcast;

use crate::network::Network;

#[async_trait]
impl Gossip for Network {
    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), GossipError> {
        if data.len() > topic.max_message() {
            return Err(GossipError::TooLarge { size: data.len() });
        }
        self.swarm.publish(topic, data).await
    }

    fn subscribe(&self, topic: Topic) -> broadcast::Receiver<GossipMessage> {
        self.shared.listeners(topic).subscribe()
    }
}
