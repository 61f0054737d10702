//! What the demo adds: a folder that was named, or a selection of the Rust sources that building this program left on
//! the machine.
//!
//! The selection is real and the same every time: whole packages in alphabetical order until there are enough files,
//! then the largest files of the others until there are enough bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A tree has at least this many files …
const ENOUGH_FILES: usize = 1_000;
/// … and this many bytes.
const ENOUGH_BYTES: u64 = 100_000_000;
/// Larger files are left out: they are prebuilt libraries.
const MAX_FILE_BYTES: u64 = 16_000_000;
/// More files than this are not looked at.
const MAX_FILES_SEEN: usize = 300_000;

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its path inside the tree.
    pub(super) path: PathBuf,
    /// Its size.
    pub(super) bytes: u64,
}

/// A tree of files.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where it is.
    pub(super) root: PathBuf,
    /// Its files, sorted by path.
    pub(super) files: Vec<File>,
}

impl Tree {
    /// A tree that was named.
    pub(super) fn named(root: &Path) -> anyhow::Result<Self> {
        let root = root.canonicalize().with_context(|| format!("finding {}", root.display()))?;
        let files = list(&root)?;
        if files.is_empty() {
            bail!("{} has no files in it", root.display());
        }
        Ok(Self { root, files })
    }

    /// A selection of Rust sources, laid out in `root`.
    pub(super) fn of_sources(root: &Path) -> anyhow::Result<Self> {
        let sources = sources_folder()?;
        let all = list(&sources)?;
        let chosen = choose(&all, ENOUGH_FILES, ENOUGH_BYTES);
        for file in &chosen {
            lay_out(&sources.join(&file.path), &root.join(&file.path))?;
        }
        let tree = Self { root: root.to_owned(), files: chosen };
        if tree.files.len() < ENOUGH_FILES || tree.bytes() < ENOUGH_BYTES {
            bail!("{} has too little in it; name a folder of your own with --content", sources.display());
        }
        Ok(tree)
    }

    /// The size of all files together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The largest file, and one of middling size: what is read back.
    pub(super) fn samples(&self) -> Vec<&File> {
        let mut by_size: Vec<&File> = self.files.iter().filter(|file| file.bytes > 0).collect();
        by_size.sort_by_key(|file| file.bytes);
        let mut samples: Vec<&File> = by_size.last().into_iter().copied().collect();
        if by_size.len() > 1 {
            samples.push(by_size[by_size.len() / 2]);
        }
        samples
    }
}

/// Where cargo unpacks the sources of dependencies.
fn sources_folder() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let registry = home.context("neither CARGO_HOME nor HOME is set")?.join("registry").join("src");
    let missing = || format!("{} does not exist; name a folder of your own with --content", registry.display());
    let folders = fs::read_dir(&registry).with_context(missing)?;
    let folders = folders.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.min().with_context(missing)
}

/// The files below a folder, sorted by path. Links and names that are not text are left out.
fn list(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            let hidden = entry.file_name().to_str().is_none_or(|name| name.starts_with('.'));
            if hidden || files.len() >= MAX_FILES_SEEN {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let path = path.strip_prefix(root).context("a file is outside its folder")?.to_owned();
                files.push(File { path, bytes: entry.metadata()?.len() });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Whole packages in order until there are enough files, then the largest files until there are enough bytes.
fn choose(all: &[File], enough_files: usize, enough_bytes: u64) -> Vec<File> {
    let package = |file: &File| file.path.components().next().map(|part| part.as_os_str().to_owned());
    let mut chosen: Vec<File> = Vec::new();
    let mut rest: Vec<&File> = Vec::new();
    let mut last = None;
    for file in all.iter().filter(|file| file.bytes <= MAX_FILE_BYTES) {
        if chosen.len() < enough_files || package(file) == last {
            last = package(file);
            chosen.push(file.clone());
        } else {
            last = None;
            rest.push(file);
        }
    }
    let mut bytes: u64 = chosen.iter().map(|file| file.bytes).sum();
    rest.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    for file in rest {
        if bytes >= enough_bytes {
            break;
        }
        bytes += file.bytes;
        chosen.push(file.clone());
    }
    chosen.sort_by(|a, b| a.path.cmp(&b.path));
    chosen
}

/// Puts a file into the tree without doubling it where the file system can do that.
fn lay_out(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a file is outside its folder")?;
    fs::create_dir_all(folder)?;
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> File {
        File { path: PathBuf::from(path), bytes }
    }

    #[test]
    fn a_selection_has_whole_packages_first_and_large_files_then() {
        let all = [file("a/1", 1), file("a/2", 1), file("a/3", 1), file("b/1", 50), file("c/1", 900), file("d/1", 3)];
        let chosen = choose(&all, 2, 500);
        let paths: Vec<&str> = chosen.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/1", "a/2", "a/3", "c/1"]);
    }

    #[test]
    fn prebuilt_libraries_are_left_out() {
        let all = [file("a/lib.a", MAX_FILE_BYTES + 1), file("b/1", 1)];
        assert_eq!(choose(&all, 10, 10), [file("b/1", 1)]);
    }

    #[test]
    fn a_folder_is_listed_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("in/.git")).unwrap();
        fs::write(folder.path().join("in/one"), "1").unwrap();
        fs::write(folder.path().join("in/.git/two"), "2").unwrap();
        let tree = Tree::named(folder.path()).unwrap();
        assert_eq!(tree.files, [file("in/one", 1)]);
        assert!(Tree::named(&folder.path().join("in/.git/none")).is_err());
    }
}
