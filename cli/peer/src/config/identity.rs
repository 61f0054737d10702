//! Which identity a peer has: the environment's, else that of `identity.json`, else that of an old `service.json`.

use cluster_net::{Identity, IdentityError};

use super::folder::ConfigFolder;
use super::sections::IdentitySource;
use super::value::Secret;

/// Makes sure that `identity.json` exists; returns whether it had to be written. An existing one is never touched.
pub fn ensure_identity(folder: &ConfigFolder, source: &IdentitySource) -> Result<bool, IdentityError> {
    let path = folder.identity_file();
    if path.exists() {
        return Ok(false);
    }
    let known = source.environment.as_ref().or(source.legacy.as_ref());
    let identity = known.map_or_else(|| Ok(Identity::generate()), from_parts)?;
    identity.save(&path)?;
    Ok(true)
}

/// The identity that a peer starts with.
pub fn load_identity(folder: &ConfigFolder, source: &IdentitySource) -> Result<Identity, IdentityError> {
    if let Some(parts) = &source.environment {
        return from_parts(parts);
    }
    let path = folder.identity_file();
    match &source.legacy {
        Some(parts) if !path.exists() => from_parts(parts),
        Some(_) | None => Identity::load(&path),
    }
}

fn from_parts((id, key): &(cluster_types::PeerId, Secret)) -> Result<Identity, IdentityError> {
    Identity::from_parts(&id.to_string(), key.reveal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_once_and_kept() {
        let place = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(place.path());
        let source = IdentitySource::default();
        assert!(ensure_identity(&folder, &source).unwrap());
        let peer = load_identity(&folder, &source).unwrap().peer();
        assert!(!ensure_identity(&folder, &source).unwrap());
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), peer);
    }

    #[test]
    fn the_environment_comes_before_the_file_and_the_file_before_old_configurations() {
        let place = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(place.path());
        let parts = |identity: &Identity| Some((identity.peer(), Secret::new(identity.reveal_private_key())));
        let (old, new) = (Identity::generate(), Identity::generate());
        let source = IdentitySource { legacy: parts(&old), ..IdentitySource::default() };
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), old.peer());
        new.save(&folder.identity_file()).unwrap();
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), new.peer());
        let source = IdentitySource { environment: parts(&old), legacy: None };
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), old.peer());
    }
}
