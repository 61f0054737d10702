//! Lines that scripts write are read, and others are not.

use clap::CommandFactory;

use super::*;
use cluster_terminal::normalise;

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let line = line.replace("CID", CID);
    let words = line.split_whitespace().map(Into::into);
    Arguments::try_parse_from(normalise(words, &Arguments::command()).words)
}

#[test]
fn the_command_tree_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn command_lines_of_the_original_are_understood() {
    for line in [
        "ctl --host /ip4/1.2.3.4/tcp/9094 -enc json -t 5 -d id",
        "ctl --secret abcd -s --no-check-certificate --basic-auth a:b --force-http peers ls",
        "ctl peers rm 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
        "ctl add -r -H -w --raw-leaves --nocopy --local --no-pin --no-stream -q -Q --wait -wt 5s a b",
        "ctl add a --format car --layout trickle --chunker rabin --cid-version 1 --hash blake2b-256 --metadata a=b",
        "ctl pin add CID -r 2 --mode direct -ns -w -wl 2 -wt 1m",
        "ctl pin add --replication-min -1 --replication-max -1 /ipfs/CID/a",
        "ctl pin rm -ns CID",
        "ctl pin update CID CID --name new --expire-in 24h --wait",
        "ctl pin ls --filter meta-pin,shard-pin",
        "ctl pin ls CID",
        "ctl status CID CID --local",
        "ctl status --filter=error,queued",
        "ctl recover CID --local=true",
        "ctl health graph -f out.dot --all-ipfs-peers",
        "ctl health metrics ping",
        "ctl health alerts",
        "ctl health bandwidth",
        "ctl --watch status",
        "ctl --watch=5 --token x -f --ca-cert ca.pem pin ls",
        "ctl pin rm CID -w=true -wl -1",
        "ctl events",
        "ctl events --limit 5000 --before 42-1",
        "ctl ipfs gc --local",
        "ctl version",
        "ctl commands",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    for line in [
        "ctl id --encoding json",
        "ctl --encoding xml id",
        "ctl pin add",
        "ctl pin add CID CID",
        "ctl pin add --metadata novalue CID",
        "ctl pin add --expire-in soon CID",
        "ctl pin add --mode sideways CID",
        "ctl add --cid-version 2 x",
        "ctl add --layout flat x",
        "ctl status nonsense",
        "ctl peers add x",
        "ctl events --before 42",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn flags_of_a_command_may_follow_its_arguments() {
    let Command::Pin(PinCommand::Add(arguments)) = parse("ctl pin add CID -ns -wt 90s").unwrap().command else {
        panic!("another command was read")
    };
    assert!(arguments.after.no_status);
    assert_eq!(arguments.after.wait_timeout.to_string(), "1m30s");
}

#[test]
fn help_fits_every_terminal_and_shows_examples() {
    let faults = cluster_terminal::checks::faults_of_help(&Arguments::command());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_list_of_the_surface_is_complete() {
    let surface = include_str!("../../tests/surface.txt");
    let differences = cluster_terminal::checks::golden::differences(surface, &Arguments::command());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
