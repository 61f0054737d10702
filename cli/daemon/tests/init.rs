//! What `init` must never lose.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn service(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CLUSTER_") || name.starts_with("IPFS_") {
            command.env_remove(name.as_ref());
        }
    }
    command.envs(variables.iter().copied()).arg("--config").arg(folder).args(words).output().unwrap()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_key_of_an_old_configuration_outlives_it() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    assert!(service(&folder, &["init"], &[]).status.success());
    let identity = json_of(&folder.join("identity.json"));
    for words in [&["init", "--force"][..], &["init", "--force", "http://127.0.0.1:1/service.json"]] {
        let old = json!({"cluster": {"id": identity["id"], "private_key": identity["private_key"]}});
        fs::write(folder.join("service.json"), old.to_string()).unwrap();
        fs::remove_file(folder.join("identity.json")).unwrap();
        let output = service(&folder, words, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(json_of(&folder.join("identity.json")), identity, "{words:?}");
    }
}

#[test]
fn a_configuration_that_nobody_could_use_replaces_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    assert!(service(&folder, &["init"], &[]).status.success());
    let files = || ["service.json", "identity.json", "peerstore"].map(|file| fs::read(folder.join(file)).unwrap());
    let before = files();
    let output = service(&folder, &["init", "--force"], &[("CLUSTER_DISK_METRICTYPE", "weight")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(files(), before);
    let id = json_of(&folder.join("identity.json"))["id"].as_str().unwrap().to_owned();
    let half = service(&place.path().join("half"), &["init"], &[("CLUSTER_ID", &id)]);
    let said = String::from_utf8(half.stderr).unwrap();
    assert!(said.contains("environment variable CLUSTER_ID") && said.contains("give the key, too"), "{said}");
    assert!(!place.path().join("half/service.json").exists());
    let open = ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/0.0.0.0/tcp/9094");
    let everyone = service(&place.path().join("open"), &["init"], &[open]);
    let said = String::from_utf8(everyone.stderr).unwrap();
    assert!(said.contains("environment variable CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS"), "{said}");
    assert!(!place.path().join("open/service.json").exists());
    let meant = ("CLUSTER_RESTAPI_ALLOWUNAUTHENTICATED", "true");
    assert!(service(&place.path().join("open"), &["init"], &[open, meant]).status.success());
    let secret = service(&place.path().join("other"), &["init", "-s"], &[]);
    assert_eq!(secret.status.code(), Some(1));
    assert!(!place.path().join("other").exists(), "nothing is made before everything was understood");
}

#[test]
fn the_entry_point_of_the_container_makes_a_configuration_once() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    let binary = Path::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/container/entrypoint.sh");
    let enter = |consensus: &str| {
        let mut command = Command::new("sh");
        command.arg(&script).arg("version").env_clear().env("PATH", &path).env("IPFS_CLUSTER_PATH", &folder);
        let output = command.env("IPFS_CLUSTER_CONSENSUS", consensus).env("CLUSTER_PEERNAME", "box").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), env!("CARGO_PKG_VERSION"));
    };
    enter("raft");
    let written = json_of(&folder.join("service.json"));
    assert_eq!(written["cluster"]["peername"], "box");
    assert!(written["consensus"]["raft"].is_object() && written["consensus"]["crdt"].is_null(), "{written}");
    enter("crdt");
    assert_eq!(json_of(&folder.join("service.json")), written);
}

#[test]
fn root_gives_the_folder_of_a_container_away_and_goes_on_as_another() {
    let place = tempfile::tempdir().unwrap();
    let (folder, bin) = (place.path().join("peer"), place.path().join("bin"));
    fs::create_dir(&bin).unwrap();
    // What these would do to the system they say; who runs the script is what a variable says.
    for (name, text) in [
        ("id", "echo ${ID:-0}"),
        ("stat", "echo ${OWNER:-root}"),
        ("chown", "echo chown \"$@\" >&2"),
        ("setpriv", "echo setpriv \"$1\" \"$2\" \"$3\" >&2; shift 3; ID=1000 exec \"$@\""),
    ] {
        // Not written by this process: a program that a fork of it holds open for writing cannot be run.
        let write = "printf '%s\\n' '#!/bin/sh' \"$1\" > \"$0\" && chmod u+x \"$0\"";
        assert!(Command::new("sh").args(["-c", write]).arg(bin.join(name)).arg(text).status().unwrap().success());
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
    let path = format!("{}:{}:/usr/bin:/bin", bin.display(), binary.parent().unwrap().display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/container/entrypoint.sh");
    let enter = |variables: &[(&str, &str)]| {
        let mut command = Command::new(&script);
        command.arg("version").env_clear().env("PATH", &path).env("IPFS_CLUSTER_PATH", &folder);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), env!("CARGO_PKG_VERSION"));
        String::from_utf8(output.stderr).unwrap()
    };
    let chown = format!("chown -R ipfs: {}\n", folder.display());
    let setpriv = "setpriv --reuid=ipfs --regid=ipfs --init-groups\n";
    assert!(enter(&[]).starts_with(&format!("{chown}{setpriv}configuration written to ")));
    let using = format!("Using the configuration in {}.\n", folder.display());
    assert_eq!(enter(&[("OWNER", "ipfs")]), format!("{setpriv}{using}"));
    assert_eq!(enter(&[("ID", "1000")]), using);
}

#[test]
fn the_state_of_a_peer_that_must_not_serve_can_be_worked_on() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("peer");
    assert!(service(&folder, &["init"], &[]).status.success());
    let mut file = json_of(&folder.join("service.json"));
    file["api"]["restapi"]["http_listen_multiaddress"] = json!("/ip4/0.0.0.0/tcp/9094");
    fs::write(folder.join("service.json"), file.to_string()).unwrap();
    let daemon = service(&folder, &["daemon"], &[]);
    assert_eq!(daemon.status.code(), Some(1));
    let said = String::from_utf8(daemon.stderr).unwrap();
    assert!(said.contains("api.restapi.http_listen_multiaddress = \"/ip4/0.0.0.0/tcp/9094\""), "{said}");
    let cleanup = service(&folder, &["state", "cleanup", "--force"], &[]);
    assert!(cleanup.status.success(), "{}", String::from_utf8_lossy(&cleanup.stderr));
}
