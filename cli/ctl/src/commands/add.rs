//! `add`: uploads files, directories and what URLs lead to.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use cluster_client::{AddRequest, Source};
use cluster_terminal::Progress;
use cluster_types::{AddFormat, AddLayout, AddParams, AddedOutput, Cid, Timestamp, parse_peer_id};
use futures::StreamExt;
use url::Url;

use super::Context;
use super::pin::pin_options;
use super::wait::{self, Goal};
use crate::args::{AddArguments, FormatArgument};
use crate::failure::Failure;
use crate::output::{Added, AddedList, now};

/// The hash function that needs no CIDv1.
const DEFAULT_HASH: &str = "sha2-256";

/// Does what was asked.
pub(crate) async fn run(arguments: AddArguments, context: &Context) -> Result<(), Failure> {
    let here = std::env::current_dir().map_err(|error| Failure::local("finding the working directory", &error))?;
    let mut request = plan(&arguments, &here, now())?;
    let is_shown = context.output.is_text() && std::io::stderr().is_terminal();
    let total = if is_shown { request.size().await? } else { None };
    let mut meter = Meter::new(total, is_shown);
    request.params.progress = is_shown;
    let mut items = context.client.add(request).await?;
    let shown_at_once = !arguments.quieter && !arguments.no_stream;
    let quiet = arguments.quiet || arguments.quieter;
    let mut added: Vec<AddedOutput> = Vec::new();
    let (mut root, mut parts): (Option<AddedOutput>, Vec<Option<Cid>>) = (None, Vec::new());
    while let Some(item) = items.next().await {
        let output = item?;
        if output.cid.is_none() {
            meter.progress(&output);
            continue;
        }
        if shown_at_once {
            meter.line.aside(|| context.output.show(&Added { output: &output, quiet }))?;
        }
        // What is told of shards comes after the content.
        if arguments.shard && root.is_some() && is_part(&output.name, parts.len()) {
            parts.push(output.cid);
        } else {
            root = Some(output.clone());
        }
        if arguments.no_stream && !arguments.quieter {
            added.push(output);
        }
    }
    drop(meter);
    if arguments.no_stream && arguments.quieter {
        added.extend(root.clone());
    }
    if arguments.no_stream {
        context.output.show(&AddedList(added.iter().map(|output| Added { output, quiet }).collect()))?;
    } else if let Some(output) = root.as_ref().filter(|_| arguments.quieter) {
        context.output.show(&Added { output, quiet })?;
    }
    // Of content in shards, those are what is pinned.
    let awaited = if parts.is_empty() { vec![root.and_then(|output| output.cid)] } else { parts };
    for cid in awaited.into_iter().flatten().filter(|_| arguments.wait && !arguments.no_pin) {
        let pin = context.client.allocation(&cid).await?;
        wait::until(context, cid, Goal::pinned(&pin), arguments.wait_timeout.0).await?;
    }
    Ok(())
}

/// Whether this is the next shard, or the list of all of them.
fn is_part(name: &str, shards: usize) -> bool {
    name == format!("shard-{shards}") || (shards > 0 && name.ends_with("-clusterDAG"))
}

/// What is uploaded and how, after the rules for flags that imply others.
fn plan(arguments: &AddArguments, here: &Path, now: Timestamp) -> Result<AddRequest, Failure> {
    let refuse = |text: &str| Err(Failure::Local { doing: "", text: text.to_owned() });
    if arguments.paths.is_empty() {
        return refuse("need at least one path");
    }
    let wrap_with_directory = arguments.wrap_with_directory || arguments.paths.len() > 1;
    if wrap_with_directory && arguments.format == FormatArgument::Car {
        return refuse("only a single CAR file can be added, and it cannot be wrapped in a directory");
    }
    let sources = arguments.paths.iter().map(|path| source(path, here)).collect::<Result<Vec<_>, _>>()?;
    if arguments.nocopy && sources.iter().any(|source| matches!(source, Source::Path { .. })) {
        return refuse("nocopy option is only valid for URLs");
    }
    let profile = arguments.profile.unwrap_or_default().params();
    let hash = arguments.hash.as_deref().map_or(profile.hash, str::to_ascii_lowercase);
    let cid_version = if hash == DEFAULT_HASH { arguments.cid_version.unwrap_or(profile.cid_version) } else { 1 };
    let mut options = pin_options(&arguments.options, now);
    let peers = arguments.options.allocations.iter();
    options.shard_size = arguments.shard_size;
    options.user_allocations = peers.filter_map(|peer| parse_peer_id(peer.trim()).ok()).collect();
    let params = AddParams {
        options,
        format: match arguments.format {
            FormatArgument::Unixfs => AddFormat::UnixFs,
            FormatArgument::Car => AddFormat::Car,
        },
        layout: if arguments.layout == "trickle" { AddLayout::Trickle } else { AddLayout::Balanced },
        chunker: arguments.chunker.clone().unwrap_or(profile.chunker),
        raw_leaves: arguments.raw_leaves || arguments.nocopy || cid_version > 0,
        cid_version,
        hash,
        wrap_with_directory,
        max_file_links: arguments.max_file_links.unwrap_or(profile.max_file_links),
        max_directory_links: arguments.max_directory_links.unwrap_or(profile.max_directory_links),
        max_hamt_fanout: arguments.max_hamt_fanout.unwrap_or(profile.max_hamt_fanout),
        directory_size: profile.directory_size,
        local: arguments.local,
        no_pin: arguments.no_pin,
        shard: arguments.shard,
        ..AddParams::default()
    };
    let (recursive, hidden, nocopy) = (arguments.recursive, arguments.hidden, arguments.nocopy);
    Ok(AddRequest { params, sources, recursive, hidden, nocopy })
}

/// Where an argument leads, and what it is called in the upload.
fn source(argument: &str, here: &Path) -> Result<Source, Failure> {
    if argument.starts_with("http://") || argument.starts_with("https://") {
        let url = Url::parse(argument).map_err(|error| Failure::local("parsing the URL", &error))?;
        let last = url.path_segments().and_then(|mut parts| parts.rfind(|part| !part.is_empty()));
        let name = last.or(url.host_str()).unwrap_or(argument).to_owned();
        return Ok(Source::Url { url, name });
    }
    let path = if argument == "." { here.to_owned() } else { PathBuf::from(argument) };
    let resolved = match path.file_name() {
        Some(_) => path,
        // `..` and its like have no name of their own.
        None => path.canonicalize().map_err(|error| Failure::local("finding the path", &error))?,
    };
    match resolved.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(Source::Path { name: name.to_owned(), path: resolved }),
        None => Err(Failure::Local { doing: "", text: format!("{argument} has no name to upload it under") }),
    }
}

/// Shows how far the upload is, on a terminal.
struct Meter {
    line: Progress,
    /// Bytes of the files before the present one.
    finished: u64,
    /// The present file, and how many of its bytes the peer has read.
    present: (String, u64),
}

impl Meter {
    /// `total`: bytes of all files, if that is known.
    fn new(total: Option<u64>, is_shown: bool) -> Self {
        Self { line: Progress::of_bytes(total, is_shown), finished: 0, present: Default::default() }
    }

    fn progress(&mut self, output: &AddedOutput) {
        if output.name != self.present.0 || output.bytes < self.present.1 {
            self.finished += self.present.1;
        }
        self.present = (output.name.clone(), output.bytes);
        self.line.set(self.finished + output.bytes);
        self.line.say(&output.name);
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use cluster_terminal::normalise;

    use super::*;
    use crate::args::{Arguments, Command};

    fn planned(flags: &str) -> Result<AddRequest, Failure> {
        let words = format!("ctl add {flags}");
        let words = normalise(words.split_whitespace().map(Into::into), &Arguments::command()).words;
        let Command::Add(arguments) = Arguments::try_parse_from(words).unwrap().command else { panic!("{flags}") };
        plan(&arguments, Path::new("/home/someone"), Timestamp::ZERO)
    }

    fn refused(flags: &str) -> String {
        planned(flags).unwrap_err().to_string()
    }

    #[test]
    fn flags_imply_others() {
        let plain = planned("a").unwrap();
        assert_eq!(plain.params, AddParams::default());
        assert!(planned("a b").unwrap().params.wrap_with_directory);
        let hashed = planned("--hash SHA2-512 a").unwrap().params;
        assert_eq!((hashed.cid_version, hashed.raw_leaves, hashed.hash.as_str()), (1, true, "sha2-512"));
        assert!(planned("a -cid-version 1").unwrap().params.raw_leaves);
        let linked = planned("--nocopy https://example.org/x").unwrap();
        assert!(linked.params.raw_leaves && linked.nocopy);
    }

    #[test]
    fn every_flag_reaches_the_request() {
        let all = planned(
            "-r -H -w -raw-leaves --local --no-pin --shard --shard-size 1000 -n notes -rmin 1 -rmax 2 --layout trickle -s size-1024 -allocs \
             nobody,12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA dir",
        );
        let all = all.unwrap();
        let params = &all.params;
        assert!(all.recursive && all.hidden && params.wrap_with_directory && params.local && params.no_pin);
        assert_eq!((params.shard, params.options.shard_size), (true, 1000));
        assert_eq!((params.layout, params.chunker.as_str()), (AddLayout::Trickle, "size-1024"));
        assert_eq!((params.options.name.as_str(), params.options.user_allocations.len()), ("notes", 1));
        assert_eq!((params.options.replication_factor_min, params.options.replication_factor_max), (1, 2));
        assert_eq!(planned("--format car x.car").unwrap().params.format, AddFormat::Car);
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_sent() {
        assert_eq!(refused(""), "error : need at least one path");
        assert!(refused("--format car -w x.car").contains("cannot be wrapped"));
        assert!(refused("--format car x.car y.car").contains("single CAR"));
        assert!(refused("--nocopy file").contains("only valid for URLs"));
        assert!(refused("/").contains("no name"));
    }

    #[test]
    fn sources_are_called_after_their_last_part() {
        let name = |argument: &str| match source(argument, Path::new("/home/someone")).unwrap() {
            Source::Path { path, name } => (path, name),
            Source::Url { name, .. } => (PathBuf::new(), name),
        };
        assert_eq!(name("."), (PathBuf::from("/home/someone"), "someone".to_owned()));
        assert_eq!(name("a/b/").1, "b");
        assert_eq!(name("https://example.org/a/b.iso?x=y").1, "b.iso");
        assert_eq!(name("https://example.org/a/").1, "a");
        assert_eq!(name("https://example.org").1, "example.org");
    }

    #[test]
    fn bytes_of_all_files_are_counted() {
        let mut meter = Meter::new(None, false);
        for (name, bytes) in [("a", 5), ("a", 9), ("b", 4), ("b", 2)] {
            meter.progress(&AddedOutput { name: name.to_owned(), bytes, ..AddedOutput::default() });
        }
        assert_eq!((meter.finished, &meter.present), (13, &("b".to_owned(), 2)));
    }
}
