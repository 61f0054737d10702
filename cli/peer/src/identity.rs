//! Who this peer is: from the environment, from `identity.json`, or from an old configuration file.

use cluster_net::Identity;
use cluster_types::BoxError;

use crate::config::Config;

/// The identity a configuration leads to. An identity in an old configuration file becomes `identity.json`.
pub(crate) fn open(config: &Config) -> Result<Identity, BoxError> {
    let source = &config.cluster.identity;
    if let Some((id, key)) = &source.environment {
        return Ok(Identity::from_parts(&id.to_string(), key.reveal())?);
    }
    let path = config.folder.identity_file();
    match (&source.legacy, path.exists()) {
        (Some((id, key)), false) => {
            let identity = Identity::from_parts(&id.to_string(), key.reveal())?;
            identity.save(&path)?;
            Ok(identity)
        }
        _ => Ok(Identity::load(&path)?),
    }
}
