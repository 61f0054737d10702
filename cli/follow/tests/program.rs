//! The program from outside: texts, exit codes, files.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1/service.json";

fn follow(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-follow"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CLUSTER_") || name.starts_with("IPFS_") {
            command.env_remove(name.as_ref());
        }
    }
    command.env("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", "/ip4/127.0.0.1/tcp/1");
    command.arg("--config").arg(root).args(words).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_first_start_and_what_makes_no_sense() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("none");
    let (code, text, _) = said(&follow(&root, &[]));
    assert_eq!((code, text.as_str()), (Some(0), include_str!("golden/first-start.txt")));
    for command in [&["maps"][..], &["maps", "info"], &["maps", "list"], &["maps", "run"]] {
        let (code, text, _) = said(&follow(&root, command));
        assert_eq!(code, Some(1), "{command:?}");
        assert!(text.contains("ipfs-cluster-follow maps init <config-url>"), "{text}");
    }
    let (code, _, error) = said(&follow(&root, &["maps", "dance"]));
    assert_eq!((code, error.as_str()), (Some(3), "No help topic for 'dance'\n"));
    let (code, _, error) = said(&follow(&root, &["maps", "list", "--fast"]));
    assert_eq!(code, Some(1));
    assert!(error.starts_with("Incorrect Usage. "), "{error}");
    assert_eq!(said(&follow(&root, &["maps", "--help"])).0, Some(0));
    assert!(!root.exists(), "looking makes nothing");
}

#[test]
fn init_writes_an_identity_and_the_source_once() {
    let place = tempfile::tempdir().unwrap();
    let (root, folder) = (place.path(), place.path().join("maps"));
    let (code, text, error) = said(&follow(root, &["maps", "init", NOBODY]));
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("\"ipfs-cluster-follow maps run\""), "{text}");
    let config = fs::read_to_string(folder.join("service.json")).unwrap();
    assert_eq!(config, format!("{{\n  \"source\": \"{NOBODY}\"\n}}\n"));
    let mode = |file: &str| fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("service.json"), mode("identity.json")), (0o600, 0o600));
    let identity = fs::read(folder.join("identity.json")).unwrap();

    let (code, _, error) = said(&follow(root, &["maps", "init", "http://127.0.0.1:2/x"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("followed already") && error.contains(&folder.display().to_string()), "{error}");
    assert_eq!(fs::read_to_string(folder.join("service.json")).unwrap(), config);
    assert_eq!(fs::read(folder.join("identity.json")).unwrap(), identity);

    let (code, text, _) = said(&follow(root, &[]));
    assert_eq!(code, Some(0));
    assert!(text.starts_with("Configurations found for 1 follower peers."), "{text}");
    assert!(text.contains("\nipfs-cluster-follow \"maps\"\n"), "{text}");
}

#[test]
fn a_name_becomes_a_path_on_the_gateway() {
    let place = tempfile::tempdir().unwrap();
    let (code, text, _) =
        said(&follow(place.path(), &["maps", "init", "maps.example.org", "--gateway", "127.0.0.1:1"]));
    assert_eq!(code, Some(0));
    assert!(text.contains("http://127.0.0.1:1/ipns/maps.example.org"), "{text}");
    let config = fs::read_to_string(place.path().join("maps").join("service.json")).unwrap();
    assert!(config.contains("\"http://127.0.0.1:1/ipns/maps.example.org\""), "{config}");
}

#[test]
fn a_source_that_is_away_is_told_and_the_list_of_a_stopped_peer_needs_none() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    assert_eq!(said(&follow(root, &["maps", "init", NOBODY])).0, Some(0));
    let expected = format!(
        "Information about follower peer for Cluster \"maps\":\n\nConfig folder: {}\nConfig source URL: failed retrieving \
         configuration source ({NOBODY})\nCluster Peer online: false\nIPFS peer online: false\n",
        root.join("maps").display()
    );
    let (code, text, error) = said(&follow(root, &["maps", "info"]));
    assert_eq!((code, text), (Some(0), expected.clone()), "{error}");
    let (code, text, _) = said(&follow(root, &["maps"]));
    assert_eq!(code, Some(0));
    assert!(text.starts_with(&expected) && text.contains("Usage: ipfs-cluster-follow maps"), "{text}");
    assert_eq!(said(&follow(root, &["maps", "list"])), (Some(0), String::new(), String::new()));
    let (code, _, error) = said(&follow(root, &["maps", "run"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot fetch the configuration") && error.contains(NOBODY), "{error}");
}

#[test]
fn an_init_that_was_killed_is_gone_on_with() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("maps");
    assert_eq!(said(&follow(place.path(), &["maps", "init", NOBODY])).0, Some(0));
    let identity = fs::read(folder.join("identity.json")).unwrap();
    // As a kill between the identity and the configuration leaves it.
    fs::remove_file(folder.join("service.json")).unwrap();
    for command in ["info", "list", "run"] {
        let (code, text, _) = said(&follow(place.path(), &["maps", command]));
        assert!(code == Some(1) && text.contains("ipfs-cluster-follow maps init <config-url>"), "{command}: {text}");
    }
    let (code, _, error) = said(&follow(place.path(), &["maps", "init", NOBODY]));
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(fs::read(folder.join("identity.json")).unwrap(), identity);
    assert!(folder.join("service.json").is_file());
}
