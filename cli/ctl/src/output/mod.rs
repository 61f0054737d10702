//! Answers on the standard output, in the encoding that was chosen.
//!
//! **Invariant:** nothing else in this program writes there.
//! **Invariant:** tables and colours are for terminals. What is not a terminal gets the lines of the original, byte by byte.

mod graph;
mod humanise;
mod json;
mod table;
mod tables;
mod text;
mod with_commit;

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};

use cluster_client::ApiFailure;
use cluster_terminal::Sink;
use cluster_types::{ConnectGraph, Timestamp};
use serde::Serialize;

use crate::args::Encoding;
use crate::failure::Failure;

pub(crate) use table::Table;
pub(crate) use text::{Added, AddedList, MetricNames, PeerVersion};
pub(crate) use with_commit::WithCommit;

/// What can be printed for people and for programs.
pub(crate) trait Show: Serialize {
    /// The lines for people; `now` is what relative times count from.
    fn lines(&self, now: Timestamp) -> Vec<String>;

    /// The same as rows of a table, for a terminal; none where lines do as well.
    fn table(&self, _now: Timestamp) -> Option<Table> {
        None
    }
}

/// Where answers go.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    encoding: Encoding,
    /// Whether people look at it on a terminal that shows colours.
    is_table: bool,
    /// The heading of the table that was begun.
    begun: Cell<Option<&'static [(&'static str, usize)]>>,
}

impl Output {
    /// Prints in `encoding`.
    pub(crate) fn new(encoding: Encoding) -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == OsStr::new("dumb"));
        let is_table = encoding == Encoding::Text && io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
        Self { encoding, is_table, begun: Cell::new(None) }
    }

    /// Whether people read it.
    pub(crate) fn is_text(&self) -> bool {
        self.encoding == Encoding::Text
    }

    /// Begins anew, for the same question asked again: at the top of a terminal, below what is there elsewhere.
    pub(crate) fn begin_again(&self) -> Result<(), Failure> {
        self.begun.set(None);
        if self.is_text() && io::stdout().is_terminal() { write("\x1b[H\x1b[2J") } else { Ok(()) }
    }

    /// Prints one document.
    pub(crate) fn show<T: Show + ?Sized>(&self, item: &T) -> Result<(), Failure> {
        let now = now();
        match item.table(now).filter(|_| self.is_table) {
            Some(table) => {
                let is_new = self.begun.replace(Some(table.columns)) != Some(table.columns);
                write(&table.rendered(is_new))
            }
            None => write(&render(item, self.encoding, now)?),
        }
    }

    /// Prints an error the API answered.
    pub(crate) fn show_error(&self, failure: &ApiFailure) -> Result<(), Failure> {
        self.show(failure)
    }

    /// Prints lines as they are, in any encoding.
    pub(crate) fn plain(&self, lines: &[String]) -> Result<(), Failure> {
        write(&text::joined(lines))
    }

    /// Prints a text of this program's own.
    pub(crate) fn raw(&self, text: &[u8]) -> Result<(), Failure> {
        write(&String::from_utf8_lossy(text))
    }

    /// Prints who is connected to whom as a graph, or writes it to a file.
    pub(crate) fn graph(
        &self,
        graph: &ConnectGraph,
        all_ipfs_peers: bool,
        file: Option<&std::path::Path>,
    ) -> Result<(), Failure> {
        let drawn = graph::draw(graph, all_ipfs_peers);
        if file.is_none() {
            return write(&drawn);
        }
        let written = Sink::open(file).and_then(|mut sink| {
            sink.writer().write_all(drawn.as_bytes())?;
            sink.finish()
        });
        written.map_err(|error| Failure::local("writing the graph", &error))
    }
}

/// The present time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_nanos(jiff::Timestamp::now().as_nanosecond())
}

fn render<T: Show + ?Sized>(item: &T, encoding: Encoding, now: Timestamp) -> Result<String, Failure> {
    match encoding {
        Encoding::Text => Ok(text::joined(&item.lines(now))),
        Encoding::Json => json::document(item),
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        Failure::Local { doing: "writing the output", text: error.kind().to_string() }
    })
}
