//! `state import`: puts the pins of a file in the place of a stopped peer's state.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::Path;

use anyhow::Context;
use cluster_peer::state::{ImportOptions, import};
use cluster_terminal::Progress;
use cluster_types::{PeerId, parse_peer_id};

use crate::args::{Arguments, ImportArguments};
use crate::commands::daemon::start_logging;
use crate::prompt;

const REPLACE: &str = "The pinset (state) of this peer will be replaced. Continue?";
const FROM_STDIN: &str = "reading from stdin, Ctrl-D to finish";
/// Bytes read from a file at a time.
const READ_AHEAD: usize = 256 << 10;

/// Runs the command.
pub(super) fn run(flags: &ImportArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let options = ImportOptions {
        replication_min: flags.replication_min,
        replication_max: flags.replication_max,
        allocations: peers(&flags.allocations)?,
    };
    let folder = super::folder(arguments)?;
    let (_lock, loaded) = super::stopped(&folder)?;
    let file = flags.file.as_deref().filter(|path| *path != Path::new("-"));
    let file = file.map(File::open).transpose().context("reading import file")?;
    if !flags.force && !arguments.force {
        let answer = prompt::yes_or_no(REPLACE, &mut io::stdin().lock(), &mut io::stdout());
        if !answer.context("reading the answer")? {
            return Ok(());
        }
    }
    let size = file.as_ref().and_then(|file| file.metadata().ok()).filter(|known| known.is_file());
    let progress = Progress::of_bytes(size.map(|known| known.len()), file.is_some() || !io::stdin().is_terminal());
    let input: Box<dyn io::Read + Send> = if let Some(file) = file {
        Box::new(file)
    } else {
        println!("{FROM_STDIN}");
        Box::new(Stdin)
    };
    let input = Box::new(BufReader::with_capacity(READ_AHEAD, Told { input, progress }));
    let runtime = super::runtime()?;
    let imported = runtime.block_on(import(&loaded.config, input, options));
    // The thread that reads may wait for an input that nobody wants any more.
    runtime.shutdown_background();
    let imported = imported.context("importing the state")?;
    tracing::info!(pins = imported.pins, members = ?imported.members, "the state was imported");
    if imported.members.len() > 1 {
        tracing::info!("import the same file with the same flags on all members before they are started");
    }
    Ok(())
}

fn peers(texts: &[String]) -> anyhow::Result<Vec<PeerId>> {
    let texts = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let parse = |text: &str| parse_peer_id(text).with_context(|| format!("parsing --allocations: {text:?}"));
    texts.map(parse).collect()
}

/// An input that says how much of it was read.
struct Told {
    input: Box<dyn io::Read + Send>,
    progress: Progress,
}

impl io::Read for Told {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.progress.add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

/// The standard input, locked for each read: a lock cannot go to another thread. What was read together with the answer
/// to the question comes first.
struct Stdin;

impl io::Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::stdin().read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_none_is_named() {
        let known = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".to_owned();
        assert_eq!(peers(&[format!(" {known}"), String::new()]).unwrap(), [known.parse().unwrap()]);
        let error = peers(&[known, "nobody".to_owned()]).unwrap_err();
        assert!(format!("{error:#}").starts_with("parsing --allocations: \"nobody\": "), "{error:#}");
    }
}
