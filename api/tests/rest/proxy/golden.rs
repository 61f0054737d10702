//! Requests and answers as files in `tests/golden-proxy`, as those of the REST API; behind the calls of the cluster stand
//! those of the node. After the name of the script, `down` has no node there.

use std::path::PathBuf;

use super::World;
use crate::fake::Script;
use crate::golden::{SEPARATOR, bytes_of, without_date};

#[tokio::test]
async fn answers_of_the_proxy_are_those_of_the_golden_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden-proxy");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 60, "golden files are missing");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let asked = text.split(SEPARATOR).next().unwrap();
        let (script, asked_text) = asked.split_once('\n').unwrap();
        let (script, is_down) = script.strip_suffix(" down").map_or((script, false), |script| (script, true));
        let mut world = World::new(Script::named(script)).await;
        if is_down {
            world.node.die().await;
        }
        let answer = world.raw(&bytes_of(asked_text)).await.replace(&world.node.port.to_string(), "(port)");
        let cluster = world.cluster.calls().into_iter();
        let mut of_headers = world.node.seen();
        // These two are asked for at the same time.
        of_headers.sort();
        let calls: String = cluster
            .chain(of_headers.into_iter().map(|call| format!("node: {call}")))
            .map(|call| format!("{call}\n"))
            .collect();
        let seen = format!("{asked}{SEPARATOR}{}\n{SEPARATOR}{calls}", without_date(&answer));
        if update {
            std::fs::write(&file, &seen).unwrap();
        } else if seen != text {
            wrong.push(format!("{}\n--- expected\n{text}\n--- seen\n{seen}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
