//! Adds files and directories.

use std::collections::BTreeMap;
use std::collections::btree_map;

use bytes::Bytes;
use cluster_types::{AddedOutput, Cid};
use tokio::sync::mpsc;

use super::sink::Batch;
use super::tree::{Allowance, Directory, Entry, invalid, shown, split};
use super::{CUT, DISORDER, ImportPlan, NOTHING};
use crate::cluster::{AddEvent, ServiceResult};
use crate::ports::Block;
use crate::unixfs::chunker::Chunker;
use crate::unixfs::directory::{build_directory, build_symlink};
use crate::unixfs::file::{Built, FileBuilder};

/// Bytes between two reports of progress.
const PROGRESS_STEP: u64 = 256 * 1024;

/// Imports an upload of files and directories.
pub(super) async fn import(
    plan: &ImportPlan,
    events: &mut mpsc::Receiver<ServiceResult<AddEvent>>,
    batch: &mut Batch<'_>,
) -> ServiceResult<Cid> {
    let mut importer = Importer {
        plan,
        batch,
        directory: Directory::default(),
        top: None,
        allowance: Allowance::default(),
        root: None,
    };
    while let Some(event) = events.recv().await {
        match event? {
            AddEvent::Directory { path } => importer.directory(&path).await?,
            AddEvent::Symlink { path, target } => importer.symlink(&path, &target).await?,
            AddEvent::File { path } => importer.file(path, events).await?,
            AddEvent::Data(_) | AddEvent::EndOfFile => return Err(invalid(DISORDER)),
        }
    }
    importer.finish().await
}

struct Importer<'a, 'b> {
    plan: &'a ImportPlan,
    batch: &'a mut Batch<'b>,
    /// Holds the top-level entries that are wrapped, or the one that is open.
    directory: Directory,
    /// Name of the open top-level directory, unless everything is wrapped.
    top: Option<String>,
    allowance: Allowance,
    /// The last top-level entry that was finished.
    root: Option<Cid>,
}

impl Importer<'_, '_> {
    async fn directory(&mut self, path: &str) -> ServiceResult<()> {
        let parts = split(path)?;
        self.enter(parts[0]).await?;
        self.directory.make(&parts, &mut self.allowance)?;
        Ok(())
    }

    async fn symlink(&mut self, path: &str, target: &str) -> ServiceResult<()> {
        if target.len() > super::MAX_PATH {
            return Err(invalid(format!("the target of symlink {:?} is too long", shown(path))));
        }
        let mut blocks = Vec::new();
        let built = build_symlink(self.plan.cids, target, &mut |block| blocks.push(block));
        self.batch.put_all(&mut blocks).await?;
        self.place(path, built).await
    }

    /// Reads a file to its end.
    async fn file(&mut self, path: String, events: &mut mpsc::Receiver<ServiceResult<AddEvent>>) -> ServiceResult<()> {
        if !path.is_empty() {
            split(&path)?; // Before the work, not after it.
        }
        let mut chunker = Chunker::new(self.plan.chunking);
        let mut builder = FileBuilder::new(self.plan.cids, self.plan.files);
        let mut blocks: Vec<Block> = Vec::new();
        let (mut read, mut told) = (0, 0);
        loop {
            match events.recv().await.ok_or_else(|| invalid(CUT))?? {
                AddEvent::Data(data) => {
                    read += data.len() as u64;
                    self.chunks(data, &mut chunker, &mut builder).await?;
                    if read - told >= PROGRESS_STEP {
                        told = read;
                        self.progress(&path, read).await?;
                    }
                }
                AddEvent::EndOfFile => break,
                AddEvent::Directory { .. } | AddEvent::Symlink { .. } | AddEvent::File { .. } => {
                    return Err(invalid(DISORDER));
                }
            }
        }
        if let Some(chunk) = chunker.last_chunk() {
            builder.push(chunk, &mut blocks);
        }
        let built = builder.finish(&mut blocks);
        self.batch.put_all(&mut blocks).await?;
        self.progress(&path, read).await?;
        self.place(&path, built).await
    }

    async fn chunks(&mut self, data: Bytes, chunker: &mut Chunker, builder: &mut FileBuilder) -> ServiceResult<()> {
        let mut blocks = Vec::new();
        chunker.push(data);
        while let Some(chunk) = chunker.next_chunk() {
            builder.push(chunk, &mut blocks);
            self.batch.put_all(&mut blocks).await?;
        }
        Ok(())
    }

    /// Tells how much of a file was read; named by its path below the top-level entry.
    async fn progress(&mut self, path: &str, bytes: u64) -> ServiceResult<()> {
        if !self.plan.progress {
            return Ok(());
        }
        let below = if self.plan.wrap { path } else { path.split_once('/').map_or("", |(_, below)| below) };
        self.batch.tell(AddedOutput { name: below.to_owned(), bytes, ..AddedOutput::default() }).await
    }

    /// Puts a finished file or symlink in its place. One without a name (standard input) is named by its CID.
    async fn place(&mut self, path: &str, built: Built) -> ServiceResult<()> {
        let name = if path.is_empty() { built.cid.to_string() } else { path.to_owned() };
        let parts = split(&name)?;
        if let ([_], false) = (parts.as_slice(), self.plan.wrap) {
            self.close().await?;
            self.root = Some(built.cid);
        } else {
            self.enter(parts[0]).await?;
            self.directory.put(&parts, built, &mut self.allowance)?;
        }
        self.tell(name, built).await
    }

    /// Opens the top-level directory `name`, unless it is open; closes the one that was.
    async fn enter(&mut self, name: &str) -> ServiceResult<()> {
        if self.plan.wrap || self.top.as_deref() == Some(name) {
            return Ok(());
        }
        self.close().await?;
        self.top = Some(name.to_owned());
        Ok(())
    }

    /// Builds the directories of the open top-level entry.
    async fn close(&mut self) -> ServiceResult<()> {
        let Some(name) = self.top.take() else { return Ok(()) };
        if let Some(Entry::Directory(directory)) = std::mem::take(&mut self.directory).entries.remove(&name) {
            self.root = Some(self.build(name, directory).await?.cid);
        }
        Ok(())
    }

    async fn finish(mut self) -> ServiceResult<Cid> {
        if self.plan.wrap && !self.directory.entries.is_empty() {
            let directory = std::mem::take(&mut self.directory);
            self.root = Some(self.build(String::new(), directory).await?.cid);
        } else {
            self.close().await?;
        }
        self.root.ok_or_else(|| invalid(NOTHING))
    }

    /// Builds a directory and all below it, children first.
    async fn build(&mut self, path: String, directory: Directory) -> ServiceResult<Built> {
        let mut open =
            vec![Open { path, name: String::new(), left: directory.entries.into_iter(), built: BTreeMap::new() }];
        loop {
            let here = open.last_mut().expect("the loop returns when it closes the first");
            match here.left.next() {
                Some((name, Entry::Leaf(built))) => drop(here.built.insert(name, built)),
                Some((name, Entry::Directory(below))) => {
                    let path = if here.path.is_empty() { name.clone() } else { format!("{}/{name}", here.path) };
                    open.push(Open { path, name, left: below.entries.into_iter(), built: BTreeMap::new() });
                }
                None => {
                    let done = open.pop().expect("it was just looked at");
                    let built = self.build_one(done.path, &done.built).await?;
                    match open.last_mut() {
                        Some(parent) => drop(parent.built.insert(done.name, built)),
                        None => return Ok(built),
                    }
                }
            }
        }
    }

    async fn build_one(&mut self, path: String, entries: &BTreeMap<String, Built>) -> ServiceResult<Built> {
        let mut blocks = Vec::new();
        let built = build_directory(self.plan.cids, &self.plan.directories, entries, &mut |block| blocks.push(block))
            .map_err(|error| invalid(error.to_string()))?;
        self.batch.put_all(&mut blocks).await?;
        self.tell(path, built).await?;
        Ok(built)
    }

    async fn tell(&mut self, name: String, built: Built) -> ServiceResult<()> {
        let output = AddedOutput { name, cid: Some(built.cid), size: built.dag_size, ..AddedOutput::default() };
        self.batch.tell(output).await
    }
}

/// A directory whose entries are being built.
struct Open {
    path: String,
    name: String,
    left: btree_map::IntoIter<String, Entry>,
    built: BTreeMap<String, Built>,
}
