//! Tests of the identity file.

use super::*;

const PRIVATE_KEY: &str =
    "CAESQJWEUYSJpnSbYrlLyTPT8YuiEA/zsXk5evLnM46mXJIq5fPL8odIfD10CjGOhkYdxvy5VuS2Q6/PJzgd0iZCmGA=";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_saved_identity_is_read_back_and_only_its_owner_can_read_it() {
    let folder = folder();
    let path = folder.path().join("identity.json");
    let identity = Identity::generate();
    identity.save(&path).unwrap();
    Identity::generate().save(&path).unwrap();
    identity.save(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().peer(), identity.peer());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn damage_is_reported_with_the_file_and_a_way_out_but_without_the_key() {
    let folder = folder();
    let path = folder.path().join("identity.json");
    let identity = Identity::generate();
    let other = PeerId::random();
    let key = identity.reveal_private_key();
    let contents = [
        "{".to_owned(),
        format!(r#"{{"id":"{other}","private_key":"{key}"}}"#),
        format!(r#"{{"id":"{}","private_key":"{}"}}"#, identity.peer(), &key[..key.len() - 8]),
        format!(r#"{{"id":"{}","private_key":["{key}"]}}"#, identity.peer()),
        format!(r#"{{"id":"nobody","private_key":"{key}"}}"#),
        "x".repeat(100_000),
    ];
    for content in contents {
        std::fs::write(&path, content).unwrap();
        let error = Identity::load(&path).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(matches!(error, IdentityError::Damaged { .. }), "{text}");
        assert!(text.contains("identity.json") && text.contains("restore it from a backup"), "{text}");
        assert!(!text.contains(&key[8..24]), "{text}");
    }
}

#[test]
fn a_key_of_a_kind_that_cannot_be_used_is_named() {
    for (encoded, part) in [
        ([0x08, 0x00, 0x12, 1, 7], "2048 to 4096 bits"),
        ([0x08, 0x03, 0x12, 1, 7], "an ECDSA key"),
        ([0x08, 0x09, 0x12, 1, 7], "not an Ed25519, RSA or secp256k1 key"),
    ] {
        let error = Identity::from_private_key(&STANDARD.encode(encoded)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_private_key_alone_says_who_the_peer_is() {
    let identity = Identity::generate();
    let again = Identity::from_private_key(identity.reveal_private_key()).unwrap();
    assert_eq!((again.peer(), again.reveal_private_key()), (identity.peer(), identity.reveal_private_key()));
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = Identity::load(Path::new("/nonexistent/identity.json")).unwrap_err();
    assert!(matches!(error, IdentityError::Missing { .. }));
    assert!(error.to_string().contains("init"));
}

#[test]
fn very_old_keys_that_repeat_the_public_key_are_read() {
    let identity = Identity::generate();
    let bytes = STANDARD.decode(identity.reveal_private_key()).unwrap();
    let mut old = ED25519_REPEATED.to_vec();
    old.extend_from_slice(&bytes[4..68]);
    old.extend_from_slice(&bytes[36..68]);
    let id = identity.peer().to_string();
    let read = Identity::from_parts(&id, &STANDARD.encode(&old)).unwrap();
    assert_eq!(read.reveal_private_key(), identity.reveal_private_key());
    *old.last_mut().unwrap() ^= 1;
    assert!(Identity::from_parts(&id, &STANDARD.encode(&old)).is_err());
}

#[test]
fn a_secp256k1_key_is_read_and_written_back_as_it_was() {
    let keypair = Keypair::generate_secp256k1();
    let encoded = STANDARD.encode(keypair.to_protobuf_encoding().unwrap());
    let identity = Identity::from_parts(&keypair.public().to_peer_id().to_string(), &encoded).unwrap();
    assert_eq!(identity.reveal_private_key(), encoded);
}

#[test]
fn debug_output_hides_the_key() {
    let identity = Identity::generate();
    assert!(!format!("{identity:?}").contains(&identity.reveal_private_key()[8..24]));
    assert!(Identity::from_parts("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", PRIVATE_KEY).is_err());
}
