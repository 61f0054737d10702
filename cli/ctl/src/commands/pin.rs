//! `pin`: pins, unpins and lists content.

use std::time::Duration;

use cluster_client::{PinPath, Written};
use cluster_types::{Commit, GoDuration, PinMode, PinOptions, PinTypeFilter, Timestamp, TrackerStatus, parse_peer_id};

use super::Context;
use super::wait::{self, Goal};
use crate::args::{AfterArguments, ModeArgument, OptionArguments, PinAddArguments, PinCommand};
use crate::failure::Failure;
use crate::output::{WithCommit, now};

/// How long peers get before the status is asked for: most pins of content that is near are done by then.
const BEFORE_STATUS: Duration = Duration::from_secs(1);
/// What somebody is told whose write was accepted without a quorum.
const EVENTUAL: &str = "note: no quorum answers. This peer has the change on its disk, acts on it and passes it on; it \
    is merged when a quorum is back. Should it lose against a change made elsewhere, `ipfs-cluster-ctl events` shows it.";

/// Does what was asked.
pub(crate) async fn run(command: PinCommand, context: &Context) -> Result<(), Failure> {
    match command {
        PinCommand::Add(arguments) => {
            let path = PinPath::parse(&arguments.path)?;
            let options = add_options(&arguments, now())?;
            let written = context.client.pin(&path, &options).await?;
            after(&written, Goal::pinned(&written.pin), &arguments.after, context).await
        }
        PinCommand::Rm { path, after: arguments } => {
            let written = context.client.unpin(&PinPath::parse(&path)?).await?;
            after(&written, Goal { status: TrackerStatus::Unpinned, limit: None }, &arguments, context).await
        }
        PinCommand::Update { from, path, name, expire_in, after: arguments } => {
            let path = PinPath::parse(&path)?;
            let expire_at = expiry(expire_in, now());
            let options = PinOptions { name, expire_at, pin_update: Some(from), ..PinOptions::default() };
            let written = context.client.pin(&path, &options).await?;
            after(&written, Goal::pinned(&written.pin), &arguments, context).await
        }
        PinCommand::Ls { cid: Some(cid), .. } => context.output.show(&context.client.allocation(&cid).await?),
        PinCommand::Ls { cid: None, filter, search } => {
            // Kinds nobody knows end up as all of them.
            let filter = if PinTypeFilter::parse(&filter).is_some() { filter.as_str() } else { "all" };
            context.show_all(context.client.allocations(&search.among(filter)).await?).await
        }
    }
}

/// Waits if asked, then prints the pin or how it is doing.
async fn after(written: &Written, goal: Goal, arguments: &AfterArguments, context: &Context) -> Result<(), Failure> {
    let Written { pin, commit } = written;
    if *commit == Some(Commit::Eventual) && context.output.is_text() {
        eprintln!("{EVENTUAL}");
    }
    let mut status = None;
    if arguments.wait {
        let goal = goal.limited(arguments.wait_limit);
        status = Some(wait::until(context, pin.cid, goal, arguments.wait_timeout.0).await?);
    }
    if arguments.no_status {
        return context.output.show(&WithCommit::new(pin, *commit));
    }
    let status = match status {
        Some(status) => status,
        None => {
            tokio::time::sleep(BEFORE_STATUS).await;
            context.client.status(&pin.cid, false).await?
        }
    };
    context.output.show(&WithCommit::new(&status, *commit))
}

fn add_options(arguments: &PinAddArguments, now: Timestamp) -> Result<PinOptions, Failure> {
    let mut options = pin_options(&arguments.options, now);
    if arguments.replication != 0 {
        options.replication_factor_min = arguments.replication;
        options.replication_factor_max = arguments.replication;
    }
    options.mode = match arguments.mode {
        ModeArgument::Recursive => PinMode::Recursive,
        ModeArgument::Direct => PinMode::Direct,
    };
    for peer in arguments.options.allocations.iter().map(|peer| peer.trim()).filter(|peer| !peer.is_empty()) {
        let peer = parse_peer_id(peer).map_err(|error| Failure::local("parsing allocations", &error))?;
        options.user_allocations.push(peer);
    }
    Ok(options)
}

/// The options that stand in the flags, without the allocations, which not all commands read alike.
pub(crate) fn pin_options(arguments: &OptionArguments, now: Timestamp) -> PinOptions {
    PinOptions {
        replication_factor_min: arguments.replication_min,
        replication_factor_max: arguments.replication_max,
        name: arguments.name.clone(),
        expire_at: expiry(arguments.expire_in, now),
        metadata: arguments.metadata.iter().cloned().collect(),
        ..PinOptions::default()
    }
}

fn expiry(after: Option<GoDuration>, now: Timestamp) -> Timestamp {
    after.filter(|after| !after.0.is_zero()).map_or(Timestamp::ZERO, |after| now.saturating_add(after.0))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use cluster_terminal::normalise;

    use super::*;
    use crate::args::{Arguments, Command};

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn options(flags: &str) -> Result<PinOptions, Failure> {
        let words = format!("ctl pin add {flags}");
        let words = normalise(words.split_whitespace().map(Into::into), &Arguments::command()).words;
        let arguments = Arguments::try_parse_from(words).unwrap();
        let Command::Pin(PinCommand::Add(arguments)) = arguments.command else { panic!("{flags}") };
        add_options(&arguments, Timestamp::from_unix_seconds(1_000))
    }

    #[test]
    fn flags_become_options() {
        let read = options(&format!(
            "-rmin 1 {CID} -rmax=2 -n notes --mode direct -expire-in 1h --metadata a=b=c --metadata d= -allocs {PEER}"
        ));
        let read = read.unwrap();
        assert_eq!((read.replication_factor_min, read.replication_factor_max), (1, 2));
        assert_eq!((read.name.as_str(), read.mode), ("notes", PinMode::Direct));
        assert_eq!(read.expire_at.unix_seconds(), 4_600);
        assert_eq!(read.metadata["a"], "b=c");
        assert_eq!(read.metadata["d"], "");
        assert_eq!(read.user_allocations, [PEER.parse().unwrap()]);
    }

    #[test]
    fn one_factor_for_both_wins() {
        let read = options(&format!("-r -1 -rmin 2 -rmax 3 {CID}")).unwrap();
        assert_eq!((read.replication_factor_min, read.replication_factor_max), (-1, -1));
        let read = options(&format!("--replication 0 -rmin 2 -rmax 3 {CID}")).unwrap();
        assert_eq!((read.replication_factor_min, read.replication_factor_max), (2, 3));
        assert!(read.expire_at.is_zero());
    }

    #[test]
    fn a_peer_nobody_can_read_is_an_error() {
        assert_eq!(options(&format!("--allocations nobody {CID}")).unwrap_err().exit_code(), 1);
    }
}
