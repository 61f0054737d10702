//! The file with this peer's raft id. It lies beside the log it belongs to, so that who removes one removes both.

use std::path::PathBuf;

use async_trait::async_trait;
use cluster_core::ports::NodeIdRecord;
use cluster_types::BoxError;
use serde::{Deserialize, Serialize};

use crate::config::ConfigFolder;

const FILE: &str = "raft_node.json";

/// A raft id in a file.
#[derive(Debug)]
pub(crate) struct NodeIdFile {
    folder: ConfigFolder,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Content {
    node_id: u64,
}

impl NodeIdFile {
    /// The file in a state folder.
    pub(crate) fn new(folder: ConfigFolder, state_folder: &std::path::Path) -> Self {
        Self { folder, path: state_folder.join(FILE) }
    }
}

#[async_trait]
impl NodeIdRecord for NodeIdFile {
    async fn load(&self) -> Result<Option<u64>, BoxError> {
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", self.path.display()).into()),
        };
        let content: Content = serde_json::from_str(&text).map_err(|error| {
            format!("{} is damaged ({error}): restore it from a backup, or remove the whole state folder and join anew", self.path.display())
        })?;
        Ok(Some(content.node_id))
    }

    async fn save(&self, node_id: u64) -> Result<(), BoxError> {
        let json = serde_json::to_vec(&Content { node_id })?;
        Ok(self.folder.write_file(&self.path, &json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_is_kept_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let record = || NodeIdFile::new(ConfigFolder::new(folder.path()), folder.path());
        assert_eq!(record().load().await.unwrap(), None);
        record().save(7).await.unwrap();
        assert_eq!(record().load().await.unwrap(), Some(7));
        std::fs::write(folder.path().join(FILE), "{\"node").unwrap();
        assert!(record().load().await.unwrap_err().to_string().contains(FILE));
    }
}
