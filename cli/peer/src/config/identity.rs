//! Which identity a peer has: the environment's, else that of `identity.json`, else that of an old `service.json`.

use cluster_net::{Identity, IdentityError};

use super::folder::ConfigFolder;
use super::sections::{IdentityHalf, IdentitySource};
use super::value::Secret;

/// Makes sure that `identity.json` exists; returns whether it had to be written. An existing one is never touched.
pub fn ensure_identity(folder: &ConfigFolder, source: &IdentitySource) -> Result<bool, IdentityError> {
    let path = folder.identity_file();
    if path.exists() {
        return Ok(false);
    }
    let known = source.environment.as_ref().or(source.legacy.as_ref());
    let identity = match (known, &source.half) {
        (Some(parts), _) => from_parts(parts)?,
        (None, Some(IdentityHalf::Key(key))) => Identity::from_private_key(key.reveal())?,
        (None, Some(IdentityHalf::Id(_))) => {
            return Err(IdentityError::Invalid { problem: "CLUSTER_ID needs its key" });
        }
        (None, None) => Identity::generate(),
    };
    identity.save(&path)?;
    Ok(true)
}

/// Gives an identity that stands only in an old configuration a file of its own, so that it outlives the configuration;
/// returns whether it had to be written.
pub fn ensure_legacy_identity(folder: &ConfigFolder, source: &IdentitySource) -> Result<bool, IdentityError> {
    if source.legacy.is_none() { Ok(false) } else { ensure_identity(folder, source) }
}

/// The identity that a peer starts with.
pub fn load_identity(folder: &ConfigFolder, source: &IdentitySource) -> Result<Identity, IdentityError> {
    if let Some(parts) = &source.environment {
        return from_parts(parts);
    }
    let path = folder.identity_file();
    let stored = || match &source.legacy {
        Some(parts) if !path.exists() => from_parts(parts),
        Some(_) | None => Identity::load(&path),
    };
    match &source.half {
        None => stored(),
        Some(IdentityHalf::Key(key)) if !path.exists() && source.legacy.is_none() => {
            Identity::from_private_key(key.reveal())
        }
        Some(half) => overlaid(&stored()?, half),
    }
}

/// The identity with one half of the environment. It can only be the same: another peer has another key.
fn overlaid(stored: &Identity, half: &IdentityHalf) -> Result<Identity, IdentityError> {
    let (together, problem) = match half {
        IdentityHalf::Id(id) => (
            Identity::from_parts(&id.to_string(), stored.reveal_private_key()),
            "CLUSTER_ID is not the peer of the identity file: give CLUSTER_PRIVATEKEY, too, or neither",
        ),
        IdentityHalf::Key(key) => (
            Identity::from_parts(&stored.peer().to_string(), key.reveal()),
            "CLUSTER_PRIVATEKEY is not the key of the peer in the identity file: give CLUSTER_ID, too, or neither",
        ),
    };
    together.map_err(|_| IdentityError::Invalid { problem })
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
        let elsewhere = ConfigFolder::new(place.path().join("."));
        let none = IdentitySource::default();
        assert!(!ensure_legacy_identity(&elsewhere, &none).unwrap() && !folder.identity_file().exists());
        assert!(ensure_legacy_identity(&folder, &source).unwrap());
        assert_eq!(load_identity(&folder, &none).unwrap().peer(), old.peer());
        std::fs::remove_file(folder.identity_file()).unwrap();
        new.save(&folder.identity_file()).unwrap();
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), new.peer());
        let source = IdentitySource { environment: parts(&old), ..IdentitySource::default() };
        assert_eq!(load_identity(&folder, &source).unwrap().peer(), old.peer());
    }

    #[test]
    fn half_an_identity_of_the_environment_must_fit_the_file_and_a_key_makes_one() {
        let place = tempfile::tempdir().unwrap();
        let folder = ConfigFolder::new(place.path());
        let [own, other] = [Identity::generate(), Identity::generate()];
        let half = |half| IdentitySource { half: Some(half), ..IdentitySource::default() };
        let key = |identity: &Identity| half(IdentityHalf::Key(Secret::new(identity.reveal_private_key())));
        let id = |identity: &Identity| half(IdentityHalf::Id(identity.peer()));
        assert_eq!(load_identity(&folder, &key(&own)).unwrap().peer(), own.peer());
        ensure_identity(&folder, &id(&own)).unwrap_err();
        assert!(ensure_identity(&folder, &key(&own)).unwrap());
        for source in [key(&own), id(&own)] {
            assert_eq!(load_identity(&folder, &source).unwrap().peer(), own.peer());
        }
        for (source, name) in [(key(&other), "CLUSTER_PRIVATEKEY"), (id(&other), "CLUSTER_ID")] {
            let error = load_identity(&folder, &source).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
