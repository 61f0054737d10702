//! Adds a CAR archive: its blocks as they are, its one root as what was added.

use cluster_types::{AddedOutput, Codec};
use tokio::sync::mpsc;

use super::sink::Batch;
use super::tree::invalid;
use crate::cluster::{AddEvent, ServiceResult};
use crate::unixfs::car::{CarError, CarReader};
use crate::unixfs::{identity_data, read};

/// What clients know the refusal of archives with several roots by.
const SINGLE_ROOT: &str = "only CAR files with a single root are supported";

/// Imports the first part of an upload as an archive; what follows it is not looked at.
pub(super) async fn import(
    events: &mut mpsc::Receiver<ServiceResult<AddEvent>>,
    batch: &mut Batch<'_>,
) -> ServiceResult<cluster_types::Cid> {
    let name = match events.recv().await {
        Some(event) => match event? {
            AddEvent::File { path } => path,
            AddEvent::Directory { .. } | AddEvent::Symlink { .. } | AddEvent::Data(_) | AddEvent::EndOfFile => {
                return Err(invalid("the first part of a CAR upload must be a CAR file"));
            }
        },
        None => return Err(invalid(super::NOTHING)),
    };
    let mut reader = CarReader::new();
    let mut output = AddedOutput { name, ..AddedOutput::default() };
    loop {
        match events.recv().await.ok_or_else(|| invalid(super::CUT))?? {
            AddEvent::Data(data) => {
                reader.push(&data);
                take_blocks(&mut reader, batch, &mut output).await?;
            }
            AddEvent::EndOfFile => break,
            AddEvent::Directory { .. } | AddEvent::Symlink { .. } | AddEvent::File { .. } => {
                return Err(invalid(super::DISORDER));
            }
        }
    }
    reader.finish().map_err(bad_car)?;
    let root = output.cid.ok_or_else(|| invalid(SINGLE_ROOT))?;
    batch.tell(output).await?;
    while let Some(event) = events.recv().await {
        event?;
    }
    Ok(root)
}

async fn take_blocks(reader: &mut CarReader, batch: &mut Batch<'_>, output: &mut AddedOutput) -> ServiceResult<()> {
    loop {
        let block = reader.next_block().map_err(bad_car)?;
        if output.cid.is_none() {
            output.cid = match reader.roots() {
                None => None,
                Some([root]) => Some(*root),
                Some(_) => return Err(invalid(SINGLE_ROOT)),
            };
        }
        let Some(block) = block else { return Ok(()) };
        if !matches!(block.cid.codec(), Codec::DAG_PB | Codec::RAW | Codec::DAG_CBOR) {
            let codec = block.cid.codec();
            return Err(invalid(format!(
                "block {} has codec 0x{codec:x}: only dag-pb, raw and dag-cbor are supported",
                block.cid
            )));
        }
        output.bytes += block.data.len() as u64;
        if Some(block.cid) == output.cid {
            output.size = read::inspect(&block.cid, &block.data).ok().and_then(|node| node.file_size).unwrap_or(0);
        }
        // A block that its CID holds need not be kept.
        if identity_data(&block.cid).is_none() {
            batch.put(block).await?;
        }
    }
}

fn bad_car(error: CarError) -> cluster_types::WireError {
    invalid(error.to_string())
}
