//! The node's own key, kept in a file of its own: the public swarm never uses the identity of the cluster.

use std::io::{ErrorKind, Write};
use std::path::Path;

use libp2p::identity::Keypair;

use super::StartError;

/// The longest key file that is read; an RSA key is about 2 KiB.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Reads the key, or makes an ed25519 one and keeps it. The file holds libp2p's protobuf encoding and is readable by
/// its owner only.
pub(super) fn load_or_create(path: &Path) -> Result<Keypair, StartError> {
    let fail = |cause: std::io::Error| StartError::Key { path: path.to_owned(), cause: cause.into() };
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_KEY_FILE => Err(fail(std::io::Error::other("the file is too large for a key"))),
        Ok(_) => {
            let bytes = std::fs::read(path).map_err(fail)?;
            Keypair::from_protobuf_encoding(&bytes)
                .map_err(|cause| StartError::Key { path: path.to_owned(), cause: cause.into() })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => create(path).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

/// Writes beside the final name first: a crash leaves either no key or a whole one.
fn create(path: &Path) -> Result<Keypair, std::io::Error> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().map_err(std::io::Error::other)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    // A leftover of a crash may have been made by someone with other permissions: start from nothing.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_broken_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("key");
        // A leftover that everybody may read must not become the key's file.
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(path.with_extension("new"), b"leftover").unwrap();
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public(), made.public());
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
        std::fs::write(&path, b"broken").unwrap();
        assert!(matches!(load_or_create(&path), Err(StartError::Key { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"broken");
    }
}
