//! The directories of an upload, while it comes.
//!
//! **Invariant:** an entry costs its name, its CID and its size; there are at most [`MAX_ENTRIES`] of them with
//! [`MAX_NAMES`] bytes of names (about 300 MB in the worst case), and content is never here.

use std::collections::BTreeMap;
use std::collections::btree_map;

use cluster_types::{ErrorClass, WireError};

use crate::cluster::ServiceResult;
use crate::unixfs::file::Built;

/// Files, symlinks and directories of one upload.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of all names of one upload.
pub const MAX_NAMES: usize = 64 * 1024 * 1024;
/// Parts of a path.
pub const MAX_DEPTH: usize = 256;
/// Bytes of a path.
pub const MAX_PATH: usize = 16 * 1024;
/// Bytes of a name: 256 of them fit a block, which is what a shard of a directory may have to hold.
pub const MAX_NAME: usize = 4 * 1024;

/// Entries by name.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<String, Entry>,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Entry {
    /// A file or a symlink, which has its blocks.
    Leaf(Built),
    /// A directory, which gets its blocks at the end.
    Directory(Directory),
}

/// How much of an upload's allowance is used.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    entries: usize,
    names: usize,
}

/// The upload, or what it asks for, cannot be imported.
pub(super) fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorClass::Malformed, message)
}

/// The part of a path that an error may quote.
pub(super) fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

/// The parts of an upload's path; refuses what could lead out of the upload, or nowhere.
pub(super) fn split(path: &str) -> ServiceResult<Vec<&str>> {
    if path.len() > MAX_PATH {
        return Err(invalid(format!("a path of {} bytes is too long: at most {MAX_PATH}", path.len())));
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > MAX_DEPTH {
        return Err(invalid(format!("directories are nested too deeply: at most {MAX_DEPTH} levels")));
    }
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err(invalid(format!("invalid path in the upload: {:?}", shown(path))));
    }
    if let Some(part) = parts.iter().find(|part| part.len() > MAX_NAME) {
        return Err(invalid(format!("a name of {} bytes is too long: at most {MAX_NAME}", part.len())));
    }
    Ok(parts)
}

impl Allowance {
    fn take(&mut self, name: &str) -> ServiceResult<()> {
        self.entries += 1;
        self.names += name.len();
        if self.entries > MAX_ENTRIES {
            return Err(invalid(format!("the upload has more than {MAX_ENTRIES} files and directories: split it")));
        }
        if self.names > MAX_NAMES {
            return Err(invalid(format!("the names in the upload have more than {MAX_NAMES} bytes: split it")));
        }
        Ok(())
    }
}

impl Directory {
    /// Makes the directory at `parts` and those above it, as far as they are missing.
    pub(super) fn make(&mut self, parts: &[&str], allowance: &mut Allowance) -> ServiceResult<&mut Self> {
        let mut directory = self;
        for (depth, part) in parts.iter().enumerate() {
            let entry = match directory.entries.entry((*part).to_owned()) {
                btree_map::Entry::Occupied(there) => there.into_mut(),
                btree_map::Entry::Vacant(free) => {
                    allowance.take(part)?;
                    free.insert(Entry::Directory(Self::default()))
                }
            };
            match entry {
                Entry::Directory(next) => directory = next,
                Entry::Leaf(_) => {
                    let path = parts[..=depth].join("/");
                    return Err(invalid(format!(
                        "the upload has {:?} both as a file and as a directory",
                        shown(&path)
                    )));
                }
            }
        }
        Ok(directory)
    }

    /// Puts a file or symlink at `parts`.
    pub(super) fn put(&mut self, parts: &[&str], leaf: Built, allowance: &mut Allowance) -> ServiceResult<()> {
        let (name, above) = parts.split_last().ok_or_else(|| invalid("a file has no name"))?;
        let directory = self.make(above, allowance)?;
        match directory.entries.entry((*name).to_owned()) {
            btree_map::Entry::Vacant(free) => {
                allowance.take(name)?;
                free.insert(Entry::Leaf(leaf));
                Ok(())
            }
            btree_map::Entry::Occupied(_) => {
                Err(invalid(format!("the upload has {:?} twice", shown(&parts.join("/")))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_of_the_upload_are_refused() {
        for path in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "a/..", ".", "./a"] {
            assert!(split(path).is_err(), "{path}");
        }
        assert_eq!(split("a/..b/c.").unwrap(), ["a", "..b", "c."]);
        assert!(split(&vec!["d"; MAX_DEPTH].join("/")).is_ok());
        assert!(split(&vec!["d"; MAX_DEPTH + 1].join("/")).is_err());
        assert!(split(&"n".repeat(MAX_NAME)).is_ok());
        assert!(split(&"n".repeat(MAX_NAME + 1)).is_err());
        assert!(split(&["n/".repeat(9000), "n".to_owned()].concat()).is_err());
    }

    #[test]
    fn the_allowance_ends() {
        let mut allowance = Allowance { entries: MAX_ENTRIES - 1, names: 0 };
        assert!(allowance.take("last").is_ok());
        assert!(allowance.take("more").is_err());
        let mut allowance = Allowance { entries: 0, names: MAX_NAMES - 4 };
        assert!(allowance.take("four").is_ok());
        assert!(allowance.take("x").is_err());
    }
}
