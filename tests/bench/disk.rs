//! The yardstick: what the disk does for a program that only appends and flushes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// One appended record, about as long as the log entry of a small pin.
const RECORD: [u8; 128] = [0x55; 128];

/// How often a second a record can be appended to a file in `folder` and flushed, measured for `time`. Blocks.
pub(crate) fn syncs_per_second(folder: &Path, time: Duration) -> Result<f64> {
    let path = folder.join("bare");
    let mut file = File::create(&path)?;
    let started = Instant::now();
    let mut syncs = 0_u32;
    while started.elapsed() < time {
        file.write_all(&RECORD)?;
        file.sync_data()?;
        syncs += 1;
    }
    let rate = f64::from(syncs) / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
