//! How far the write-ahead log was on the disk at least, in a file inside the database's folder.
//!
//! RocksDB replays its log up to the first record it cannot read, and opens with that: right after a power cut, which
//! tears the unflushed end, but damage before the end looks the same. The mark tells them apart: what was flushed must
//! be there again.
//!
//! **Invariant:** the mark is written after the flush it speaks of, and only grows. So a crash at any point, with or
//! without losing what was not flushed, never leaves a mark beyond the database. The mark itself is not flushed: an
//! older one only notices less.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cluster_core::ports::StateError;
use parking_lot::Mutex;

use crate::codec;
use crate::error::{Failed, StoreError};

/// The file; the engine leaves names it does not know alone.
const MARK_FILE: &str = "flushed";

/// The mark of an open database.
#[derive(Debug)]
pub(crate) struct FlushMark {
    file: File,
    flushed: Mutex<u64>,
}

impl FlushMark {
    /// Opens or makes the mark in the folder of a database whose last change has the number `latest`; an error when
    /// that is less than was flushed once.
    pub(crate) fn open(folder: &Path, latest: u64) -> Result<Self, StoreError> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(folder.join(MARK_FILE));
        let file = file.map_err(|error| StoreError::io("open the flush mark in", folder, error))?;
        let mut bytes = [0; 8];
        let flushed = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_be_bytes(bytes),
            // A new one, or one whose only write a power cut took.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(StoreError::io("read the flush mark in", folder, error)),
        };
        if latest < flushed {
            let what = format!(
                "its write-ahead log can be read up to change {latest} only, but changes up to {flushed} were flushed: \
                 votes and entries that were promised are lost, so this peer must not vote with what is left"
            );
            let cause = codec::damaged("write-ahead log", what).into();
            return Err(StoreError::Damaged { folder: folder.to_owned(), cause });
        }
        Ok(Self { file, flushed: Mutex::new(flushed) })
    }

    /// Notes that all changes up to the number `flushed` are on the disk.
    pub(crate) fn advance(&self, flushed: u64) -> Result<(), StateError> {
        let mut before = self.flushed.lock();
        if flushed > *before {
            self.file.write_all_at(&flushed.to_be_bytes(), 0).failed_to("write the flush mark")?;
            *before = flushed;
        }
        Ok(())
    }
}
