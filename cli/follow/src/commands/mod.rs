//! One file per command; here what needs none.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use cluster_peer::config::{ConfigFolder, ExecutionLock};

pub(crate) mod info;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod run;

/// Whether a cluster is followed. The configuration is what is written last: of a folder without it, `init` makes one.
pub(crate) fn is_initialised(folder: &ConfigFolder) -> bool {
    folder.config_file().is_file()
}

/// The right to work in a folder.
pub(crate) fn lock(folder: &ConfigFolder) -> anyhow::Result<ExecutionLock> {
    ExecutionLock::acquire(folder).context("obtaining execution lock")
}

/// Says what to do first.
pub(crate) fn say_not_initialised(cluster: &str) {
    println!(
        "\nThe cluster \"{cluster}\" is not followed yet.\n\nBegin with: ipfs-cluster-follow {cluster} init <config-url>"
    );
}

/// Lists the clusters that are followed.
pub(crate) fn clusters(root: &Path) -> anyhow::Result<()> {
    let names = names(root).with_context(|| format!("reading {}", root.display()))?;
    print!("{}", clusters_text(&names));
    Ok(())
}

fn names(root: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if ConfigFolder::new(entry.path()).config_file().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn clusters_text(names: &[String]) -> String {
    if names.is_empty() {
        return "\nNo cluster is followed yet.\n\nSome examples to begin with:\n\n\
                $ ipfs-cluster-follow --help                      - what this program does\n\
                $ ipfs-cluster-follow <clusterName> --help        - the commands of a cluster\n\
                $ ipfs-cluster-follow <clusterName> init <url>    - begin to follow a cluster\n\
                $ ipfs-cluster-follow <clusterName> run           - and keep following it\n"
            .to_owned();
    }
    let mut text =
        format!("Configurations found for {} follower peers. For info and help, try running:\n\n", names.len());
    for name in names {
        text.push_str(&format!("ipfs-cluster-follow \"{name}\"\n"));
    }
    text.push_str("\nTip: \"ipfs-cluster-follow --help\" for help and examples.\n");
    text
}

/// The runtime of a command that asks and ends.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_listed_as_the_original_does() {
        let place = tempfile::tempdir().unwrap();
        assert!(names(&place.path().join("none")).unwrap().is_empty());
        for name in ["b", "a", "no cluster"] {
            let folder = ConfigFolder::new(place.path().join(name));
            folder.create().unwrap();
            if name != "no cluster" {
                fs::write(folder.config_file(), "{}").unwrap();
            }
        }
        let names = names(place.path()).unwrap();
        assert_eq!(clusters_text(&names), include_str!("../../tests/golden/clusters.txt"));
        assert_eq!(clusters_text(&[]), include_str!("../../tests/golden/first-start.txt"));
    }
}
