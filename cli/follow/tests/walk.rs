//! Every command and flag that needs no running peer, as scripts see them, one file each in `tests/walk`.

use std::path::PathBuf;

use cluster_terminal::checks::golden::{Golden, compare, goldens, missing};

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

fn files() -> Vec<Golden> {
    goldens(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/walk"))
}

fn see(golden: &Golden) -> String {
    let place = tempfile::tempdir().expect("the system has temporary folders");
    let names = [
        (place.path().display().to_string(), "$DIR"),
        (env!("CARGO_PKG_VERSION").to_owned(), "$VERSION"),
        (CID.to_owned(), "$CID"),
        (PEER.to_owned(), "$PEER"),
    ];
    golden.run(env!("CARGO_BIN_EXE_ipfs-cluster-follow"), place.path(), &[], &names)
}

#[test]
fn every_command_line_has_the_outcome_of_its_file() {
    compare(&files(), see);
}

#[test]
fn every_command_and_flag_has_a_file() {
    let faults = missing(include_str!("surface.txt"), &files(), &["text"]);
    assert!(faults.is_empty(), "no golden file for: {}", faults.join(", "));
}
