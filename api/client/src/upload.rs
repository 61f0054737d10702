//! Uploads files and directories: walks them, and streams them as one multipart body.
//!
//! **Invariant:** a file is read in pieces; nothing is held but the piece on its way.

use std::path::{Path, PathBuf};

use async_stream::try_stream;
use bytes::Bytes;
use cluster_types::{AddFormat, AddLayout, AddParams, AddedOutput};
use futures::{Stream, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, Method};
use tokio::io::AsyncReadExt;

use crate::error::ClientError;
use crate::methods::{judge, query};
use crate::stream::{Items, items};
use crate::{ApiFailure, Client};

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
}

impl Client {
    /// Uploads content; the items come while it goes.
    pub async fn add(&self, request: AddRequest) -> Result<Items<AddedOutput>, ClientError> {
        let query = add_query(&request.params);
        let boundary = format!("cluster-{:016x}{:016x}", fresh(), fresh());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let (sender, problem) = std::sync::mpsc::channel();
        let body = Body::wrap_stream(parts(request, boundary).map(move |piece| {
            piece.map_err(|error| {
                let text = error.to_string();
                drop(sender.send(error));
                std::io::Error::other(text)
            })
        }));
        let endpoint = self.first();
        let sent = self
            .request(endpoint, Method::POST, "/add")
            .query(&query)
            .header("Content-Type", content_type)
            .body(body)
            .send()
            .await;
        // What went wrong on this side says more than the broken request that follows from it.
        if let Ok(error) = problem.try_recv() {
            return Err(error);
        }
        let response = sent.map_err(|cause| ClientError::Connection { endpoint: endpoint.base.clone(), cause })?;
        let mut added = items(judge(response).await?);
        Ok(Box::pin(try_stream! {
            while let Some(item) = added.next().await {
                match item {
                    Ok(item) => yield item,
                    Err(error) => {
                        let error = match (problem.try_recv(), error) {
                            (Ok(problem), _) => problem,
                            (Err(_), error) => error,
                        };
                        Err(error)?;
                    }
                }
            }
        }))
    }
}

/// The multipart body, piece by piece.
fn parts(request: AddRequest, boundary: String) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
    try_stream! {
        for source in &request.sources {
            match source {
                Source::Url { url, name } => {
                    yield head(&boundary, name, "application/octet-stream");
                    let response = reqwest::get(url.clone()).await.and_then(reqwest::Response::error_for_status);
                    let response = response.map_err(|error| local(format!("fetching {url}: {error}")))?;
                    let mut pieces = response.bytes_stream();
                    while let Some(piece) = pieces.next().await {
                        yield piece.map_err(|error| local(format!("fetching {url}: {error}")))?;
                    }
                    yield Bytes::from_static(b"\r\n");
                }
                Source::Path { path, name } => {
                    let mut waiting = vec![(path.clone(), name.clone())];
                    while let Some((path, name)) = waiting.pop() {
                        let kind = tokio::fs::symlink_metadata(&path).await.map_err(|error| unreadable(&path, &error))?;
                        if kind.is_dir() {
                            if !request.recursive {
                                Err(local(format!("{} is a directory, but Recursive option is not set", path.display())))?;
                            }
                            yield head(&boundary, &name, "application/x-directory");
                            yield Bytes::from_static(b"\r\n");
                            // The last is taken first: the order of the names is kept.
                            waiting.extend(children(&path, &name, request.hidden).await?.into_iter().rev());
                        } else if kind.is_symlink() {
                            let target = tokio::fs::read_link(&path).await.map_err(|error| unreadable(&path, &error))?;
                            yield head(&boundary, &name, "application/symlink");
                            yield Bytes::from(target.to_string_lossy().into_owned());
                            yield Bytes::from_static(b"\r\n");
                        } else if kind.is_file() {
                            yield head(&boundary, &name, "application/octet-stream");
                            let mut file = tokio::fs::File::open(&path).await.map_err(|error| unreadable(&path, &error))?;
                            loop {
                                let mut piece = vec![0; PIECE];
                                let read = file.read(&mut piece).await.map_err(|error| unreadable(&path, &error))?;
                                if read == 0 {
                                    break;
                                }
                                piece.truncate(read);
                                yield Bytes::from(piece);
                            }
                            yield Bytes::from_static(b"\r\n");
                        } else {
                            Err(local(format!("{} is neither a file nor a directory", path.display())))?;
                        }
                    }
                }
            }
        }
        yield Bytes::from(format!("--{boundary}--\r\n"));
    }
}

/// The entries of a directory, sorted by name.
async fn children(path: &Path, name: &str, hidden: bool) -> Result<Vec<(PathBuf, String)>, ClientError> {
    let mut entries = tokio::fs::read_dir(path).await.map_err(|error| unreadable(path, &error))?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|error| unreadable(path, &error))? {
        let child = entry.file_name();
        let child = child.to_str().ok_or_else(|| local(format!("{} holds a name that is not UTF-8", path.display())))?;
        if hidden || !child.starts_with('.') {
            found.push((entry.path(), format!("{name}/{child}")));
        }
    }
    found.sort();
    Ok(found)
}

fn head(boundary: &str, name: &str, content_type: &str) -> Bytes {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    Bytes::from(format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {content_type}\r\n\r\n"
    ))
}

fn add_query(params: &AddParams) -> Vec<(String, String)> {
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
    ];
    all.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    all
}

/// A number that is hard to meet inside a file: from the address space and the clock's jitter, by the hasher's keys.
fn fresh() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn local(reason: String) -> ClientError {
    ClientError::Local { reason }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ClientError {
    local(format!("reading {}: {error}", path.display()))
}

impl From<ApiFailure> for ClientError {
    fn from(failure: ApiFailure) -> Self {
        Self::Api(failure)
    }
}
