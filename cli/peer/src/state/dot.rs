//! The shards of a stopped peer as a graph in the DOT language.
//!
//! What the original draws is its log of deltas. Ours is one chain per shard: the records as they are, the log entries
//! in the shard's tail from the newest to the oldest, with its epochs among them.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use cluster_core::crdt::TailEntry;
use cluster_core::ports::{ShardState, StateError, StateStore, TailPlace};
use cluster_types::BoxError;
use parking_lot::Mutex;

use super::export::StoppedState;

/// Tail entries read at a time.
const PAGE: usize = 256;

/// Draws the shards of the state in `folder` that hold or held pins. Constant memory, whatever there is.
pub async fn crdt_dot(folder: &Path, output: &mut (dyn Write + Send)) -> Result<(), BoxError> {
    let Some(stopped) = StoppedState::open(folder).await? else {
        return Err(format!("there is no state in {}: this peer has never been started", folder.display()).into());
    };
    let drawn = draw(&*stopped.state(), output).await;
    stopped.close().await?;
    drawn
}

async fn draw(state: &dyn StateStore, output: &mut (dyn Write + Send)) -> Result<(), BoxError> {
    let (shards, _applied) = state.shards().await?;
    writeln!(output, "digraph CRDTDAG {{")?;
    for (shard, known) in (0_u16..).zip(&shards) {
        if *known != ShardState::default() {
            draw_shard(state, shard, known, output).await?;
        }
    }
    writeln!(output, "}}")?;
    Ok(())
}

async fn draw_shard(
    state: &dyn StateStore,
    shard: u16,
    known: &ShardState,
    output: &mut (dyn Write + Send),
) -> Result<(), BoxError> {
    let meta = known.meta;
    let mut chain = Chain { shard, epoch: meta.epoch, last: format!("S{shard}_{}", meta.previous) };
    writeln!(output, "subgraph shard_{shard} {{")?;
    writeln!(output, "  {} [shape=\"box\" label=\"epoch {}\"]", chain.last, meta.previous)?;
    let mut entry: Option<Drawn> = None;
    let mut place = TailPlace::after(meta.previous);
    loop {
        let page = tail(state, shard, place).await?;
        let Some((last, _)) = page.last() else { break };
        place = *last;
        for (_, change) in page {
            match &mut entry {
                Some(drawn) if drawn.index == change.index => drawn.count(&change),
                _ => {
                    let mut next = Drawn { index: change.index, new: 0, changed: 0 };
                    next.count(&change);
                    if let Some(finished) = entry.replace(next) {
                        chain.draw(&finished, output)?;
                    }
                }
            }
        }
    }
    if let Some(finished) = entry {
        chain.draw(&finished, output)?;
    }
    let pins = known.sum.pins;
    writeln!(output, "  S{shard} [shape=\"doubleoctagon\" label=\"shard {shard} | pins: {pins}\"]")?;
    writeln!(output, "  S{shard} -> {}", chain.last)?;
    writeln!(output, "}}")?;
    Ok(())
}

/// The entries of a shard's tail behind `after`.
async fn tail(state: &dyn StateStore, shard: u16, after: TailPlace) -> Result<Vec<(TailPlace, TailEntry)>, StateError> {
    let page = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&page);
    let look = move |view: &dyn cluster_core::ports::StateView| {
        *read.lock() = view.tail(shard, after, PAGE)?;
        Ok(())
    };
    state.read(Box::new(look)).await?;
    let page = std::mem::take(&mut *page.lock());
    Ok(page)
}

/// What one log entry changed in a shard.
struct Drawn {
    index: u64,
    /// Pins that were not there before.
    new: u64,
    /// Pins that were there before; it replaced or removed them.
    changed: u64,
}

impl Drawn {
    fn count(&mut self, change: &TailEntry) {
        if change.before.is_none() {
            self.new += 1;
        } else {
            self.changed += 1;
        }
    }
}

/// What of a shard was drawn.
struct Chain {
    shard: u16,
    epoch: u64,
    /// The name of the last node.
    last: String,
}

impl Chain {
    /// Draws the next log entry, and that it came after the last one.
    fn draw(&mut self, entry: &Drawn, output: &mut (dyn Write + Send)) -> io::Result<()> {
        let Drawn { index, new, changed } = entry;
        let name = format!("S{}_{index}", self.shard);
        let (shape, epoch) = if *index == self.epoch { ("box", "epoch ") } else { ("ellipse", "") };
        writeln!(output, "  {name} [shape=\"{shape}\" label=\"{epoch}{index} | new: {new} changed: {changed}\"]")?;
        writeln!(output, "  {name} -> {}", self.last)?;
        self.last = name;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::crdt::ShardMeta;
    use cluster_core::ports::{Changes, ShardSum, TailRow};
    use cluster_store::{Store, StoreOptions};
    use cluster_types::Cid;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn shards_are_chains_from_their_records_to_their_previous_epochs() {
        let folder = TempDir::new().unwrap();
        let mut nothing = Vec::new();
        assert!(crdt_dot(folder.path(), &mut nothing).await.unwrap_err().to_string().contains("never been started"));

        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let row = |index, place, before: Option<&'static [u8]>| TailRow {
            shard: 7,
            place,
            entry: TailEntry { index, cid, before: before.map(Into::into) },
        };
        let meta = ShardMeta { previous: 10, epoch: 20, since_epoch: 1, since_previous: 4 };
        let with_tail = ShardState { sum: ShardSum { pins: 3, hash: [1; 32] }, meta, tail_from: 0 };
        let imported = ShardState {
            sum: ShardSum { pins: 1, hash: [2; 32] },
            meta: ShardMeta { epoch: 1, previous: 1, since_epoch: 0, since_previous: 0 },
            tail_from: 1,
        };
        let changes = Changes {
            shards: vec![(7, with_tail), (9, imported)],
            tail: vec![row(11, 0, None), row(20, 0, None), row(20, 1, Some(b"before")), row(21, 0, Some(b"before"))],
            ..Changes::default()
        };
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        store.state().update(Box::new(move |_view| Ok(changes))).await.unwrap();
        store.close().await.unwrap();
        let mut drawn = Vec::new();
        crdt_dot(folder.path(), &mut drawn).await.unwrap();
        let expected = r#"digraph CRDTDAG {
subgraph shard_7 {
  S7_10 [shape="box" label="epoch 10"]
  S7_11 [shape="ellipse" label="11 | new: 1 changed: 0"]
  S7_11 -> S7_10
  S7_20 [shape="box" label="epoch 20 | new: 1 changed: 1"]
  S7_20 -> S7_11
  S7_21 [shape="ellipse" label="21 | new: 0 changed: 1"]
  S7_21 -> S7_20
  S7 [shape="doubleoctagon" label="shard 7 | pins: 3"]
  S7 -> S7_21
}
subgraph shard_9 {
  S9_1 [shape="box" label="epoch 1"]
  S9 [shape="doubleoctagon" label="shard 9 | pins: 1"]
  S9 -> S9_1
}
}
"#;
        assert_eq!(String::from_utf8(drawn).unwrap(), expected);
    }
}
