//! Where an export goes: the standard output, or a file that is whole when it gets its name.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cluster_types::Pin;
use tempfile::NamedTempFile;

/// Bytes written at a time.
const BUFFER: usize = 64 << 10;

/// Takes an export.
pub(super) enum Output {
    /// The standard output, or what is no ordinary file: a pipe, a device.
    Direct(BufWriter<Box<dyn Write + Send>>),
    /// A file, and the name it gets at the end.
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Output {
    /// Opens the output; no path, or `-`, is the standard output.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::direct(io::stdout()));
        };
        if path.metadata().is_ok_and(|known| !known.is_file()) {
            return Ok(Self::direct(OpenOptions::new().write(true).open(path).context("opening the file")?));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any new file: the process's mask takes its share.
        let mut builder = tempfile::Builder::new();
        builder.prefix(".state-export-").permissions(Permissions::from_mode(0o666));
        let file = builder.tempfile_in(folder).context("making a file")?;
        Ok(Self::File(BufWriter::with_capacity(BUFFER, file), path.to_owned()))
    }

    fn direct(output: impl Write + Send + 'static) -> Self {
        Self::Direct(BufWriter::with_capacity(BUFFER, Box::new(output)))
    }

    /// What is written to.
    pub(super) fn writer(&mut self) -> &mut (dyn Write + Send) {
        match self {
            Self::Direct(output) => output,
            Self::File(output, _) => output,
        }
    }

    /// Writes one pin in a line of its own.
    pub(super) fn pin(&mut self, pin: &Pin) -> anyhow::Result<()> {
        let output = self.writer();
        serde_json::to_writer(&mut *output, pin).map_err(io::Error::from).context("writing")?;
        output.write_all(b"\n").context("writing")
    }

    /// Everything was written: the file gets its name. Without this call nothing is left of it.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Direct(mut output) => output.flush().context("writing"),
            Self::File(output, path) => {
                let file = output.into_inner().map_err(io::IntoInnerError::into_error).context("writing")?;
                file.as_file().sync_all().context("writing")?;
                file.persist(&path).with_context(|| format!("naming {}", path.display()))?;
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).context("writing")
            }
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
        let mut cut = Output::open(Some(&path)).unwrap();
        cut.writer().write_all(b"half").unwrap();
        drop(cut);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let mut whole = Output::open(Some(&path)).unwrap();
        whole.writer().write_all(b"after").unwrap();
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
