//! Answers on the standard output, in the encoding that was chosen.
//!
//! **Invariant:** nothing else in this program writes there.

mod graph;
mod humanise;
mod json;
mod text;
mod with_commit;

use std::io::{self, Write};

use cluster_client::ApiFailure;
use cluster_types::{ConnectGraph, Timestamp};
use serde::Serialize;

use crate::args::Encoding;
use crate::failure::Failure;

pub(crate) use text::{Added, AddedList, MetricNames, PeerVersion};
pub(crate) use with_commit::WithCommit;

/// What can be printed for people and for programs.
pub(crate) trait Show: Serialize {
    /// The lines for people; `now` is what relative times count from.
    fn lines(&self, now: Timestamp) -> Vec<String>;
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    encoding: Encoding,
}

impl Output {
    /// Prints in `encoding`.
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding }
    }

    /// Whether people read it.
    pub(crate) fn is_text(self) -> bool {
        self.encoding == Encoding::Text
    }

    /// Prints one document.
    pub(crate) fn show<T: Show + ?Sized>(self, item: &T) -> Result<(), Failure> {
        write(&render(item, self.encoding, now())?)
    }

    /// Prints an error the API answered.
    pub(crate) fn show_error(self, failure: &ApiFailure) -> Result<(), Failure> {
        self.show(failure)
    }

    /// Prints lines as they are, in any encoding.
    pub(crate) fn plain(self, lines: &[String]) -> Result<(), Failure> {
        write(&text::joined(lines))
    }

    /// Prints who is connected to whom as a graph, or writes it to a file.
    pub(crate) fn graph(
        self,
        graph: &ConnectGraph,
        all_ipfs_peers: bool,
        file: Option<&std::path::Path>,
    ) -> Result<(), Failure> {
        let drawn = graph::draw(graph, all_ipfs_peers);
        match file {
            Some(path) => std::fs::write(path, drawn).map_err(|error| Failure::local("writing the graph", &error)),
            None => write(&drawn),
        }
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
