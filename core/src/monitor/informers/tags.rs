//! The operator's labels, to spread pins over.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::BoxError;

use crate::monitor::informer::{Informer, Reading};

/// Tells one `tag:<key>` per label; peers with the same value form a group.
#[derive(Clone, Debug)]
pub struct TagsInformer {
    tags: BTreeMap<String, String>,
    ttl: Duration,
}

impl TagsInformer {
    /// An informer that tells `tags`.
    pub fn new(tags: BTreeMap<String, String>, ttl: Duration) -> Self {
        Self { tags, ttl }
    }
}

#[async_trait]
impl Informer for TagsInformer {
    fn name(&self) -> &'static str {
        "tags"
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn measure(&self) -> Result<Vec<Reading>, BoxError> {
        let tags = self.tags.iter();
        Ok(tags
            .map(|(key, value)| Reading {
                name: format!("tag:{key}"),
                value: value.clone(),
                weight: 0,
                partitionable: true,
            })
            .collect())
    }
}
