//! `list`: the pins and how they are doing here; of a stopped peer, what it holds.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, bail};
use cluster_client::{ClientError, Listing};
use cluster_peer::config::ConfigFolder;
use cluster_peer::inspect::each_pin;
use cluster_types::GlobalPinInfo;
use futures::TryStreamExt;

/// Runs the command.
pub(crate) fn run(folder: &ConfigFolder) -> anyhow::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    super::runtime()?.block_on(async {
        let client = super::info::client(folder)?;
        match client.statuses(&Listing::default(), true).await {
            Ok(mut statuses) => {
                while let Some(info) = statuses.try_next().await.context("listing the pins")? {
                    for line in lines(&info) {
                        output.write_all(line.as_bytes())?;
                    }
                }
            }
            Err(ClientError::Api(said)) => {
                bail!("the peer's API answers, but with code {}: {}", said.code, said.message)
            }
            Err(_not_running) => {
                let _lock = super::lock(folder)?;
                let state = folder.state_folder();
                let shown = each_pin(&state, |pin| {
                    output.write_all(line("offline", &pin.cid.to_string(), &pin.options.name, "").as_bytes())
                });
                shown.await.map_err(anyhow::Error::from_boxed).context("obtaining the pinset")?;
            }
        }
        output.flush().context("writing the list")
    })
}

/// The lines of a pin: one for each peer that tells of it.
fn lines(info: &GlobalPinInfo) -> Vec<String> {
    let cid = info.cid.to_string();
    info.peer_map.values().map(|short| line(&short.status.to_string(), &cid, &info.name, &short.error)).collect()
}

fn line(status: &str, cid: &str, name: &str, error: &str) -> String {
    let error = if error.is_empty() { String::new() } else { format!(" ({error})") };
    format!("{status:<20} {cid} {name}{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_original() {
        let cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
        let shown = [
            line("pinned", cid, "a name", ""),
            line("unexpectedly_unpinned", cid, "", ""),
            line("pin_error", cid, "b", "no route"),
        ];
        assert_eq!(shown.concat(), include_str!("../../tests/golden/list.txt"));
    }
}
