//! Where a long answer goes: the standard output, or a file that is whole when it gets its name.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Bytes written at a time.
const BUFFER: usize = 64 << 10;

/// Takes a long answer.
pub enum Sink {
    /// The standard output, or what is no ordinary file: a pipe, a device.
    Direct(BufWriter<Box<dyn Write + Send>>),
    /// A file, and the name it gets at the end.
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Sink {
    /// Opens the output; no path, or `-`, is the standard output.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::direct(io::stdout()));
        };
        if path.metadata().is_ok_and(|known| !known.is_file()) {
            return Ok(Self::direct(OpenOptions::new().write(true).open(path)?));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any new file: the process's mask takes its share.
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ipfs-cluster-").permissions(Permissions::from_mode(0o666));
        let file = builder.tempfile_in(folder)?;
        Ok(Self::File(BufWriter::with_capacity(BUFFER, file), path.to_owned()))
    }

    fn direct(output: impl Write + Send + 'static) -> Self {
        Self::Direct(BufWriter::with_capacity(BUFFER, Box::new(output)))
    }

    /// What is written to.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        match self {
            Self::Direct(output) => output,
            Self::File(output, _) => output,
        }
    }

    /// Everything was written: the file gets its name. Without this call nothing is left of it.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Direct(mut output) => output.flush(),
            Self::File(output, path) => {
                let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|error| error.error)?;
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
            }
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(_) => f.write_str("Direct"),
            Self::File(_, path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_when_all_of_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        fs::write(&path, "before").unwrap();
        let mut cut = Sink::open(Some(&path)).unwrap();
        cut.writer().write_all(b"half").unwrap();
        drop(cut);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let mut whole = Sink::open(Some(&path)).unwrap();
        whole.writer().write_all(b"after").unwrap();
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
