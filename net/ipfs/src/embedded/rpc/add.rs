//! `add`: files become blocks of this node.
//!
//! **Invariant:** from the first block until the last pin, the blocks are under a lease: no collection takes them.

use std::convert::Infallible;

use async_trait::async_trait;
use cluster_core::add::{BlockSink, ImportPlan, import};
use cluster_core::cluster::{ADD_QUEUE, AddEvent, ServiceResult};
use cluster_core::ports::Block;
use cluster_core::task::OnExit;
use cluster_types::{AddLayout, AddParams, AddedOutput, Cid, ErrorClass, WireError};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Rpc;
use super::call::{Call, Parts, next_file, part, upload_failed};
use super::reply::{self, Answer, Failure};

/// Objects that wait for the client.
const OUTPUTS: usize = 64;
/// The longest target of a symbolic link, and the longest name of an entry.
const MAX_NAME: usize = 4096;
/// Entries of the top level that are pinned each.
const MAX_TOP: usize = 64 * 1024;

/// What Kubo's other options would ask of this node.
const UNSUPPORTED: [&str; 5] = ["nocopy", "fscache", "inline", "preserve-mode", "preserve-mtime"];

impl Rpc {
    /// `add`.
    pub(super) async fn add(&self, mut call: Call) -> Answer {
        let mut parts = call.parts("path")?;
        let params = params(&call)?;
        let plan = ImportPlan::check(&params)?;
        let only_hash = call.flag(&["only-hash", "n"])?.unwrap_or(false);
        let pin = call.flag(&["pin"])?.unwrap_or(true) && !only_hash;
        let silent = call.flag(&["silent"])?.unwrap_or(false);
        let wrapped = params.wrap_with_directory;
        let lease = self.node.kept.lease();
        if !only_hash {
            self.admit().await?;
        }
        let (events, received) = mpsc::channel(ADD_QUEUE);
        let (outputs, mut told) = mpsc::channel(OUTPUTS);
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut sink = NodeSink { rpc: self.clone(), only_hash };
        self.tasks.spawn("ipfs rpc add", OnExit::Continue, async move {
            let importing = import(&plan, received, &mut sink, outputs);
            let reading = async {
                let read = read_upload(&mut parts, &events).await;
                if let Err(failure) = &read {
                    // The import must not take what came for the whole.
                    let error = WireError::new(ErrorClass::Invalid, failure.message());
                    drop(events.send(Err(error)).await);
                }
                drop(events);
                read
            };
            let (imported, read) = tokio::join!(importing, reading);
            // The upload's own fault is the better explanation, unless the import ended it.
            let result = match (imported, read) {
                (Ok(root), Ok(())) => Ok(root),
                (Err(error), _) => Err(Failure::from(error)),
                (Ok(_), Err(failure)) => Err(failure),
            };
            // Nobody may be waiting any more.
            drop(end.send(result));
            Ok::<(), Infallible>(())
        });
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            let mut top = Vec::new();
            while let Some(output) = told.recv().await {
                if let Some(cid) = output.cid && !output.name.contains('/') && top.len() < MAX_TOP {
                    top.push(cid);
                }
                if !silent {
                    yield event(&output);
                }
            }
            let root = ended.await.map_err(|_gone| Failure::new("the add ended early"))??;
            if pin {
                let pinned = if wrapped || top.is_empty() { vec![root] } else { top };
                for cid in pinned {
                    rpc.pin_recursively(cid).await?;
                }
            }
            drop(lease);
        };
        reply::row(call.trailers, row.boxed()).await
    }
}

/// The options of an import, with Kubo's defaults.
fn params(call: &Call) -> Result<AddParams, Failure> {
    if let Some(name) = UNSUPPORTED.into_iter().find(|name| call.flag(&[name]).is_ok_and(|asked| asked == Some(true))) {
        return Err(Failure::new(format!("the embedded IPFS node does not support the option {name}")));
    }
    if call.text(&["to-files"]).is_some() {
        return Err(Failure::new("the embedded IPFS node has no files API: leave out to-files"));
    }
    let mut params = AddParams { stream_channels: true, ..AddParams::default() };
    let hash = call.text(&["hash"]).unwrap_or("sha2-256").to_ascii_lowercase();
    let small = |names: &[&str]| -> Result<Option<usize>, Failure> {
        let number = call.number(names)?;
        number
            .map(|number| usize::try_from(number).map_err(|_error| Failure::new("a number must not be negative")))
            .transpose()
    };
    let version = call.number(&["cid-version"])?;
    // Only CIDs of version 1 can name another hash function.
    let version = version.unwrap_or(i64::from(hash != "sha2-256"));
    params.cid_version = u32::try_from(version).map_err(|_error| Failure::new("unknown CID version"))?;
    if cluster_core::unixfs::HashFunction::by_name(&hash).is_none() {
        return Err(Failure::new(format!("unrecognized hash function: {hash:?}")));
    }
    params.hash = hash;
    params.raw_leaves = call.flag(&["raw-leaves"])?.unwrap_or(params.cid_version > 0);
    if let Some(chunker) = call.text(&["chunker", "s"]) {
        params.chunker = chunker.to_owned();
    }
    if call.flag(&["trickle", "t"])?.unwrap_or(false) {
        params.layout = AddLayout::Trickle;
    }
    params.wrap_with_directory = call.flag(&["wrap-with-directory", "w"])?.unwrap_or(false);
    params.progress = call.flag(&["progress", "p"])?.unwrap_or(false);
    params.max_file_links = small(&["max-file-links"])?.unwrap_or(params.max_file_links);
    params.max_directory_links = small(&["max-directory-links"])?.unwrap_or(params.max_directory_links);
    params.max_hamt_fanout = small(&["max-hamt-fanout"])?.unwrap_or(params.max_hamt_fanout);
    Ok(params)
}

fn event(output: &AddedOutput) -> Value {
    match &output.cid {
        Some(cid) => json!({ "Name": output.name, "Hash": cid.to_string(), "Size": output.size.to_string() }),
        None => json!({ "Name": output.name, "Bytes": output.bytes }),
    }
}

/// Keeps the blocks of an add in the node, or nothing when only the CIDs are asked for.
struct NodeSink {
    rpc: Rpc,
    only_hash: bool,
}

#[async_trait]
impl BlockSink for NodeSink {
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        if self.only_hash {
            return Ok(());
        }
        let failed = |message: String| WireError::new(ErrorClass::Unavailable, message);
        self.rpc.admit().await.map_err(|failure| failed(failure.message().to_owned()))?;
        self.rpc.node.keep_imported(blocks).await.map_err(|error| failed(cluster_types::ErrorChain(&error).to_string()))
    }

    async fn finish(&mut self, _root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        Ok(Vec::new())
    }
}

/// The parts of an upload as events. Nobody taking them any more is no failure of the upload.
async fn read_upload(parts: &mut Parts, events: &mpsc::Sender<ServiceResult<AddEvent>>) -> Result<(), Failure> {
    while let Some(head) = next_file(parts).await? {
        let path = entry_path(&head.file_name)?;
        let event = match head.content_type.as_str() {
            // The folder that holds everything has no name and needs no event.
            "application/x-directory" if path.is_empty() => continue,
            "application/x-directory" => AddEvent::Directory { path },
            "application/symlink" => {
                let target = part(parts, MAX_NAME).await?.and_then(|target| String::from_utf8(target.into()).ok());
                AddEvent::Symlink {
                    path,
                    target: target.ok_or_else(|| Failure::new("the target of a link is no path"))?,
                }
            }
            _ => {
                if events.send(Ok(AddEvent::File { path })).await.is_err() {
                    return Ok(());
                }
                while let Some(mut more) = parts.next_data().await.map_err(upload_failed)? {
                    while !more.is_empty() {
                        let piece = more.split_to(more.len().min(AddEvent::MAX_DATA));
                        if events.send(Ok(AddEvent::Data(piece))).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                AddEvent::EndOfFile
            }
        };
        if events.send(Ok(event)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The path of an entry as the import takes it: no empty parts, no `.`; `..` is refused.
fn entry_path(name: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if name.len() > MAX_NAME || parts.contains(&"..") || name.contains('\0') {
        return Err(Failure::new("the name of an entry is too long, or leads out of the upload"));
    }
    Ok(parts.join("/"))
}
