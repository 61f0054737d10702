//! `state recover --force-new-cluster`: goes on with one peer when most voters are lost for good.
//!
//! It says what it would do, asks, and does it in one batch: whatever happens in between, the peer is in the old cluster
//! or in the new one.

use std::fmt::Write as _;
use std::io;

use anyhow::{Context, bail};
use cluster_peer::config::{ProcessEnvironment, load_identity, load_stopped};
use cluster_peer::recover::{Recovery, RecoveryReport};

use crate::args::{Arguments, RecoverArguments};
use crate::commands::daemon::start_logging;
use crate::prompt;

const QUESTION: &str = "The other members must never run with their present state again. Make this peer the only member \
                        of a new cluster?";

/// Runs the command.
pub(crate) fn run(recover: &RecoverArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = arguments.folder()?;
    if !folder.config_file().exists() {
        bail!("loading the configuration: {} does not exist", folder.config_file().display());
    }
    let _lock = super::lock(&folder)?;
    let config = load_stopped(&folder, &ProcessEnvironment).context("loading the configuration")?.config;
    let peer = load_identity(&folder, &config.cluster.identity).context("loading the identity")?.peer();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let found = Recovery::look(&config.state_folder, peer).await;
        let Some(recovery) = found.map_err(anyhow::Error::from_boxed).context("reading the state")? else {
            println!("This peer is the only member of its cluster already: there is nothing to do.");
            return Ok(());
        };
        print!("{}", text(recovery.report()));
        let agreed = recover.yes
            || arguments.force
            || prompt::yes_or_no(QUESTION, &mut io::stdin().lock(), &mut io::stdout()).context("reading the answer")?;
        if !agreed {
            recovery.abandon().await.map_err(anyhow::Error::from_boxed).context("closing the state")?;
            bail!("recovering: everything was left as it is");
        }
        let next = next_steps(recovery.report());
        recovery.carry_out().await.map_err(anyhow::Error::from_boxed).context("writing the state")?;
        print!("{next}");
        Ok(())
    })
}

/// What is there, and what may be missing.
fn text(report: &RecoveryReport) -> String {
    let (term, index) = report.last;
    let role = match report.votes {
        Some(true) => "voter",
        Some(false) => "learner",
        None => "no member any more",
    };
    let mut text = format!(
        "Peer:                     {} ({role})\n\
         Raft id:                  {}, in the new cluster {}\n\
         Pins:                     {}\n\
         Last entry applied:       {}\n\
         Last entry in the log:    {index} (term {term})\n\
         Entries kept unproven:    {} (writes in them: {})\n",
        report.peer.to_base58(),
        report.old_id,
        report.new_id,
        report.pins,
        report.applied,
        report.unproven_entries,
        report.unproven_operations,
    );
    let _infallible = writeln!(text, "Members dropped:          {}", report.dropped.len());
    for (peer, votes) in &report.dropped {
        let _infallible = writeln!(text, "  {} ({})", peer.to_base58(), if *votes { "voter" } else { "learner" });
    }
    let _infallible = writeln!(
        text,
        "\nWhat may be missing: writes that the other members acknowledged after entry {index} and this peer did not \
         receive.\nWhat may be too much: the unproven entries were never known here to be on a majority; they take \
         effect.\nIf another member can still be read, compare: the one with the highest term, then the last entry, \
         lost least."
    );
    text
}

/// What to do afterwards.
fn next_steps(report: &RecoveryReport) -> String {
    let mut text = "\nDone. Start this peer as usual. New peers, and the old ones once their state folder was moved \
                    away, join with --bootstrap.\n"
        .to_owned();
    if !report.dropped.is_empty() {
        text.push_str("When enough peers are there, give the shares of those that are lost to others:\n");
    }
    for (peer, _votes) in &report.dropped {
        let _infallible = writeln!(text, "  ipfs-cluster-ctl peers rm {}", peer.to_base58());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_is_there_and_what_may_be_missing() {
        let peer = |text: &str| cluster_types::parse_peer_id(text).unwrap();
        let own = peer("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA");
        let other = peer("QmaFyXjZUNaUwYF8rBtbc7foEJ46aD52AKSvkMqPnBYnnR");
        let report = RecoveryReport {
            peer: own,
            votes: Some(false),
            old_id: 7,
            new_id: 1 << 63,
            last: (4, 120),
            applied: 117,
            unproven_entries: 3,
            unproven_operations: 5,
            pins: 80,
            dropped: vec![(other, true)],
        };
        let text = text(&report);
        for part in [
            "(learner)",
            "7, in the new cluster 9223372036854775808",
            "applied:       117",
            "in the log:    120 (term 4)",
            "unproven:    3 (writes in them: 5)",
            "dropped:          1",
            "QmaFyXjZUNaUwYF8rBtbc7foEJ46aD52AKSvkMqPnBYnnR (voter)",
            "after entry 120",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(next_steps(&report).contains("peers rm QmaFyX"));
        assert!(!next_steps(&RecoveryReport { dropped: Vec::new(), ..report }).contains("peers rm"));
    }
}
