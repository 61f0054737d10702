//! Uploads files and directories: walks them, and streams them as one multipart body.
//!
//! **Invariant:** a file is read in pieces; nothing is held but the piece on its way.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::Sender;

use async_stream::try_stream;
use bytes::Bytes;
use cluster_types::{AddFormat, AddLayout, AddParams, AddedOutput, DirectorySize, ErrorChain, UnixFsProfile};
use futures::{Stream, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use crate::error::ClientError;
use crate::methods::query;
use crate::stream::{Items, items};
use crate::{CONNECT_TIMEOUT, Client};

/// Bytes read from a file at a time.
const PIECE: usize = 256 * 1024;

/// What is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or directory, under a name of its own.
    Path {
        /// Where it is.
        path: PathBuf,
        /// What it is called in the upload.
        name: String,
    },
    /// What a URL leads to.
    Url {
        /// The URL.
        url: url::Url,
        /// What it is called in the upload.
        name: String,
    },
}

/// What to upload and how.
#[derive(Clone, Debug)]
pub struct AddRequest {
    /// How it is turned into blocks and pinned.
    pub params: AddParams,
    /// What is uploaded.
    pub sources: Vec<Source>,
    /// Whether directories are walked.
    pub recursive: bool,
    /// Whether names that begin with a dot are uploaded too.
    pub hidden: bool,
    /// Whether the node is to refer to the sources rather than to copy them.
    pub nocopy: bool,
}

impl AddRequest {
    /// How many bytes of files are uploaded; none if that cannot be known, because a URL is fetched.
    pub async fn size(&self) -> Result<Option<u64>, ClientError> {
        let mut waiting = Vec::new();
        for source in &self.sources {
            match source {
                Source::Url { .. } => return Ok(None),
                Source::Path { path, .. } => waiting.push(path.clone()),
            }
        }
        let mut total = 0_u64;
        while let Some(path) = waiting.pop() {
            let kind = tokio::fs::symlink_metadata(&path).await.map_err(|error| unreadable(&path, &error))?;
            if kind.is_file() {
                total = total.saturating_add(kind.len());
            } else if kind.is_dir() && self.recursive {
                waiting.extend(children(&path, "", self.hidden).await?.into_iter().map(|(path, _)| path));
            }
        }
        Ok(Some(total))
    }
}

/// The body, piece by piece.
type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>;

impl Client {
    /// Uploads content; the items come while it goes. Answers are always streamed.
    pub async fn add(&self, request: AddRequest) -> Result<Items<AddedOutput>, ClientError> {
        check(&request).await?;
        let query = add_query(&request);
        let boundary = format!("cluster-{:016x}{:016x}", fresh(), fresh());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let (sender, problem) = std::sync::mpsc::channel();
        let sent = self
            .reach(|endpoint| {
                let body = observed(parts(request.clone(), boundary.clone()), sender.clone());
                let sending = self.request(endpoint, Method::POST, "/add").query(&query);
                sending.header("Content-Type", &content_type).body(body)
            })
            .await;
        // What went wrong on this side says more than the broken request that follows from it.
        let mut added = items(sent.map_err(|error| problem.try_recv().unwrap_or(error))?);
        Ok(Box::pin(try_stream! {
            while let Some(item) = added.next().await {
                yield item.map_err(|error| problem.try_recv().unwrap_or(error))?;
            }
        }))
    }
}

/// A body from `pieces` that hands what goes wrong with them to `problems`.
fn observed(pieces: Pieces, problems: Sender<ClientError>) -> Body {
    Body::wrap_stream(pieces.map(move |piece| {
        piece.map_err(|error| {
            let text = error.to_string();
            // Nobody listens any more when the call is over.
            drop(problems.send(error));
            std::io::Error::other(text)
        })
    }))
}

/// Finds what cannot be uploaded before anything is sent.
async fn check(request: &AddRequest) -> Result<(), ClientError> {
    for source in &request.sources {
        if let Source::Path { path, .. } = source {
            let kind = tokio::fs::symlink_metadata(path).await.map_err(|error| unreadable(path, &error))?;
            if kind.is_dir() && !request.recursive {
                let path = path.display();
                return Err(local(format!("{path} is a directory, but Recursive option is not set")));
            }
        }
    }
    Ok(())
}

/// The multipart body.
fn parts(request: AddRequest, boundary: String) -> Pieces {
    Box::pin(try_stream! {
        for source in &request.sources {
            let mut entries = match source {
                Source::Url { url, name } => fetched(url.clone(), name.clone(), request.nocopy, boundary.clone()),
                Source::Path { path, name } => {
                    walked(path.clone(), name.clone(), request.hidden, boundary.clone())
                }
            };
            while let Some(piece) = entries.next().await {
                yield piece?;
            }
        }
        yield Bytes::from(format!("--{boundary}--\r\n"));
    })
}

/// The part of what a URL leads to.
fn fetched(url: url::Url, name: String, nocopy: bool, boundary: String) -> Pieces {
    Box::pin(try_stream! {
        let shown = without_user(&url);
        let failed =
            |error: reqwest::Error| local(format!("fetching {shown}: {}", ErrorChain(&error.without_url())));
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(CONNECT_TIMEOUT).build();
        let response = http.map_err(failed)?.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut pieces = response.map_err(failed)?.bytes_stream();
        // Only a node that is to fetch the bytes again needs to know from where.
        yield head(&boundary, &name, "application/octet-stream", nocopy.then_some(&shown));
        while let Some(piece) = pieces.next().await {
            yield piece.map_err(failed)?;
        }
        yield Bytes::from_static(b"\r\n");
    })
}

/// The parts of a file, or of a directory and all below it, each directory before what it holds.
fn walked(path: PathBuf, name: String, hidden: bool, boundary: String) -> Pieces {
    Box::pin(try_stream! {
        let mut waiting = vec![(path, name)];
        while let Some((path, name)) = waiting.pop() {
            let kind = tokio::fs::symlink_metadata(&path).await.map_err(|error| unreadable(&path, &error))?;
            if kind.is_dir() {
                yield head(&boundary, &name, "application/x-directory", None);
                // The last is taken first: the order of the names is kept.
                waiting.extend(children(&path, &name, hidden).await?.into_iter().rev());
            } else if kind.is_symlink() {
                let target = tokio::fs::read_link(&path).await.map_err(|error| unreadable(&path, &error))?;
                yield head(&boundary, &name, "application/symlink", None);
                yield Bytes::from(target.to_string_lossy().into_owned());
            } else if kind.is_file() {
                yield head(&boundary, &name, "application/octet-stream", None);
                let file = tokio::fs::File::open(&path).await.map_err(|error| unreadable(&path, &error))?;
                let mut pieces = ReaderStream::with_capacity(file, PIECE);
                while let Some(piece) = pieces.next().await {
                    yield piece.map_err(|error| unreadable(&path, &error))?;
                }
            } else {
                Err(local(format!("{} is neither a file nor a directory", path.display())))?;
            }
            yield Bytes::from_static(b"\r\n");
        }
    })
}

/// The entries of a directory, sorted by name.
async fn children(path: &Path, name: &str, hidden: bool) -> Result<Vec<(PathBuf, String)>, ClientError> {
    let mut entries = tokio::fs::read_dir(path).await.map_err(|error| unreadable(path, &error))?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|error| unreadable(path, &error))? {
        let child = entry.file_name();
        let child =
            child.to_str().ok_or_else(|| local(format!("{} holds a name that is not UTF-8", path.display())))?;
        if hidden || !child.starts_with('.') {
            found.push((entry.path(), format!("{name}/{child}")));
        }
    }
    found.sort();
    Ok(found)
}

/// The head of a part; `origin` is where a node could fetch the same bytes again.
fn head(boundary: &str, name: &str, content_type: &str, origin: Option<&url::Url>) -> Bytes {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let origin = origin.map_or_else(String::new, |url| format!("Abspath: {url}\r\n"));
    Bytes::from(format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {content_type}\r\n{origin}\r\n"
    ))
}

fn add_query(request: &AddRequest) -> Vec<(String, String)> {
    let params = &request.params;
    let mut all = query(&params.options);
    let format = match params.format {
        AddFormat::UnixFs => "unixfs",
        AddFormat::Car => "car",
    };
    let layout = match params.layout {
        AddLayout::Balanced => "balanced",
        AddLayout::Trickle => "trickle",
    };
    let more = [
        ("format", format.to_owned()),
        ("layout", layout.to_owned()),
        ("chunker", params.chunker.clone()),
        ("raw-leaves", params.raw_leaves.to_string()),
        ("cid-version", params.cid_version.to_string()),
        ("hash", params.hash.clone()),
        ("wrap-with-directory", params.wrap_with_directory.to_string()),
        ("local", params.local.to_string()),
        ("no-pin", params.no_pin.to_string()),
        ("progress", params.progress.to_string()),
        ("stream-channels", "true".to_owned()),
        ("recursive", request.recursive.to_string()),
        ("hidden", request.hidden.to_string()),
        ("nocopy", request.nocopy.to_string()),
    ];
    all.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    // What the original does not know is sent only by who wants it.
    let usual = AddParams::default();
    let mut beyond = |key: &str, value: String, differs: bool| {
        if differs {
            all.push((key.to_owned(), value));
        }
    };
    beyond("profile", UnixFsProfile::V1From2025.name().to_owned(), params.directory_size == DirectorySize::Block);
    for (key, value, usual) in [
        ("max-file-links", params.max_file_links, usual.max_file_links),
        ("max-directory-links", params.max_directory_links, usual.max_directory_links),
        ("max-hamt-fanout", params.max_hamt_fanout, usual.max_hamt_fanout),
    ] {
        beyond(key, value.to_string(), value != usual);
    }
    beyond("shard", "true".to_owned(), params.shard);
    all
}

/// A number that is hard to meet inside a file: every hasher starts from random keys.
fn fresh() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// A URL without the name and password in it: those are for whoever it leads to.
fn without_user(url: &url::Url) -> url::Url {
    let mut shown = url.clone();
    // A URL that cannot have a user has none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown
}

fn local(reason: String) -> ClientError {
    ClientError::Local { reason }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ClientError {
    local(format!("reading {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_size_is_that_of_what_is_uploaded() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("below");
        std::fs::create_dir(&folder).unwrap();
        for (name, size) in [("a", 5), ("below/b", 7), ("below/.hidden", 100)] {
            std::fs::write(place.path().join(name), vec![0; size]).unwrap();
        }
        let sources = vec![Source::Path { path: place.path().to_owned(), name: "x".to_owned() }];
        let params = AddParams::default();
        let mut request = AddRequest { params, sources, recursive: true, hidden: false, nocopy: false };
        assert_eq!(request.size().await.unwrap(), Some(12));
        request.hidden = true;
        assert_eq!(request.size().await.unwrap(), Some(112));
        request.sources.push(Source::Url { url: "http://example.org".parse().unwrap(), name: "y".to_owned() });
        assert_eq!(request.size().await.unwrap(), None);
    }

    #[test]
    fn who_fetches_a_url_is_not_told_to_the_peer() {
        let url: url::Url = "https://ann:swordfish@example.org/x?y".parse().unwrap();
        assert_eq!(without_user(&url).as_str(), "https://example.org/x?y");
    }
}
