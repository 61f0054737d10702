//! Which state is in place, and how another one takes its place.
//!
//! | in the state folder | what it is |
//! | --- | --- |
//! | `state`, `snapshots` | the state in use |
//! | `import.new` | an import under way; rubbish after a crash |
//! | `import.ready` | a whole import; it takes the place of the state, whatever happens in between |
//! | `old.new` | a state on its way to the backups |
//! | `old.0`, `old.1` … | states that were set aside, newest first |
//!
//! Blocks of an embedded node (`blocks`) belong to no state and stay where they are.
//!
//! **Invariant:** every step is one rename, and [`settle`] goes on after any of them. It is called before a state is
//! opened, so the old state is in place or the new one, and nobody finds a folder without either.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The database, and what goes with it. The database goes last: while it is in place, so is the state.
const PARTS: [&str; 2] = ["snapshots", DATABASE];
const DATABASE: &str = "state";
const IMPORT_NEW: &str = "import.new";
const IMPORT_READY: &str = "import.ready";
const OLD_NEW: &str = "old.new";

/// The folder of the database of the state in `folder`.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// Finishes what was cut off: an import that was whole takes its place, one that was not goes, a state on its way to the
/// backups, of which `backups` are kept, gets there. Changes nothing otherwise.
pub(crate) fn settle(folder: &Path, backups: usize) -> io::Result<()> {
    remove(&folder.join(IMPORT_NEW))?;
    if folder.join(OLD_NEW).exists() {
        set_aside(folder, backups)?;
    }
    let ready = folder.join(IMPORT_READY);
    if ready.join(DATABASE).exists() {
        set_aside(folder, backups)?;
        fs::rename(ready.join(DATABASE), folder.join(DATABASE))?;
        sync(folder)?;
    }
    remove(&ready)
}

/// An empty folder for a state that is being imported.
pub(crate) fn begin_import(folder: &Path) -> io::Result<PathBuf> {
    let new = folder.join(IMPORT_NEW);
    remove(&new)?;
    fs::create_dir_all(&new)?;
    Ok(new)
}

/// The imported state is whole and on the disk: from here on it takes the place of the old one.
pub(crate) fn finish_import(folder: &Path, backups: usize) -> io::Result<()> {
    let new = folder.join(IMPORT_NEW);
    sync(&new)?;
    fs::rename(&new, folder.join(IMPORT_READY))?;
    sync(folder)?;
    settle(folder, backups)
}

/// Gives up an import.
pub(crate) fn abandon_import(folder: &Path) -> io::Result<()> {
    remove(&folder.join(IMPORT_NEW))
}

/// Moves the state in `folder` away, to `old.0`; older ones move up, and `backups` of them, at least one, are kept. Gives
/// its new place, or `None` when there was no state.
pub fn set_aside(folder: &Path, backups: usize) -> io::Result<Option<PathBuf>> {
    let gathered = folder.join(OLD_NEW);
    let there: Vec<&str> = PARTS.into_iter().filter(|part| folder.join(part).exists()).collect();
    if there.is_empty() && !gathered.exists() {
        return Ok(None);
    }
    fs::create_dir_all(&gathered)?;
    for part in there {
        fs::rename(folder.join(part), gathered.join(part))?;
    }
    sync(&gathered)?;
    sync(folder)?;
    let slot = |number: usize| folder.join(format!("old.{number}"));
    let kept = backups.max(1);
    let free = (0..kept).find(|number| !slot(*number).exists());
    let last = free.unwrap_or(kept - 1);
    // More than one is too many after somebody has lowered the number.
    for number in (last..).take_while(|number| free.is_none() && slot(*number).exists()) {
        fs::remove_dir_all(slot(number))?;
    }
    for number in (0..last).rev() {
        fs::rename(slot(number), slot(number + 1))?;
    }
    fs::rename(&gathered, slot(0))?;
    sync(folder)?;
    Ok(Some(slot(0)))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        end => end,
    }
}

/// Has the entries of a folder on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    const BACKUPS: usize = 6;

    fn put(folder: &Path, name: &str, content: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn state(folder: &Path, content: &str) {
        put(folder, "state/CURRENT", content);
        put(folder, "snapshots/1/stream", content);
    }

    /// The files of a folder and what is in them.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                    found.insert(name, fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn the_newest_states_are_kept_and_blocks_stay() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        assert_eq!(set_aside(folder, BACKUPS).unwrap(), None);
        put(folder, "blocks/CURRENT", "blocks");
        for number in 0..9 {
            state(folder, &number.to_string());
            assert_eq!(set_aside(folder, BACKUPS).unwrap(), Some(folder.join("old.0")));
        }
        assert_eq!(set_aside(folder, BACKUPS).unwrap(), None, "there is no state any more");
        let found = files(folder);
        for (slot, content) in (0..BACKUPS).zip(["8", "7", "6", "5", "4", "3"]) {
            assert_eq!(found[&format!("old.{slot}/state/CURRENT")], content);
            assert_eq!(found[&format!("old.{slot}/snapshots/1/stream")], content);
        }
        assert_eq!(found["blocks/CURRENT"], "blocks");
        assert_eq!(found.len(), 2 * BACKUPS + 1);
        state(folder, "9");
        set_aside(folder, 2).unwrap();
        let found = files(folder);
        assert_eq!((found.len(), &*found["old.0/state/CURRENT"], &*found["old.1/state/CURRENT"]), (5, "9", "8"));
    }

    #[test]
    fn a_cleanup_that_was_cut_off_is_finished() {
        let steps = [("snapshots", "old.new/snapshots"), ("state", "old.new/state"), ("old.0", "old.1")];
        for done in 1..=steps.len() {
            let folder = TempDir::new().unwrap();
            let folder = folder.path();
            state(folder, "old");
            put(folder, "old.0/state/CURRENT", "older");
            fs::create_dir_all(folder.join("old.new")).unwrap();
            for (from, to) in &steps[..done] {
                fs::rename(folder.join(from), folder.join(to)).unwrap();
            }
            settle(folder, BACKUPS).unwrap();
            let found = files(folder);
            assert_eq!(found["old.0/state/CURRENT"], "old", "after {done} steps");
            assert_eq!(found["old.0/snapshots/1/stream"], "old", "after {done} steps");
            assert_eq!(found["old.1/state/CURRENT"], "older", "after {done} steps");
            assert_eq!(found.len(), 3, "after {done} steps: {found:?}");
        }
    }

    #[test]
    fn an_import_that_was_cut_off_leaves_the_old_state() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        state(folder, "old");
        put(folder, "import.new/state/CURRENT", "half");
        let before = files(folder);
        settle(folder, BACKUPS).unwrap();
        let mut expected = before;
        expected.remove("import.new/state/CURRENT");
        assert_eq!(files(folder), expected);
    }

    /// Every state of the folder that a kill can leave behind a whole import ends with the new state in place.
    #[test]
    fn a_whole_import_takes_its_place_wherever_it_was_cut_off() {
        // Renames in the order they are made, as (from, to).
        let steps = [
            ("snapshots", "old.new/snapshots"),
            ("state", "old.new/state"),
            ("old.0", "old.1"),
            ("old.new", "old.0"),
            ("import.ready/state", "state"),
        ];
        for done in 0..=steps.len() {
            let folder = TempDir::new().unwrap();
            let folder = folder.path();
            state(folder, "old");
            put(folder, "old.0/state/CURRENT", "older");
            put(folder, "import.ready/state/CURRENT", "new");
            fs::create_dir_all(folder.join("import.ready/snapshots")).unwrap();
            for (from, to) in &steps[..done] {
                let to = folder.join(to);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::rename(folder.join(from), to).unwrap();
            }
            settle(folder, BACKUPS).unwrap();
            let found = files(folder);
            assert_eq!(found["state/CURRENT"], "new", "after {done} steps");
            assert_eq!(found["old.0/state/CURRENT"], "old", "after {done} steps");
            assert_eq!(found["old.0/snapshots/1/stream"], "old", "after {done} steps");
            assert_eq!(found["old.1/state/CURRENT"], "older", "after {done} steps");
            assert_eq!(found.len(), 4, "after {done} steps: {found:?}");
            settle(folder, BACKUPS).unwrap();
            assert_eq!(files(folder), found, "settling twice changes nothing");
        }
    }
}
