//! Flags and subcommands, with their help.
//!
//! Names, short forms and defaults are those of the original, so that scripts keep working. How flags may be written
//! is the business of [`crate::spelling`].

#![expect(
    rustdoc::invalid_html_tags,
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help on a terminal"
)]

use std::fmt;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_types::{Cid, Event, EventPlace, GoDuration};

/// Speaks to a peer of an IPFS cluster: pins content, adds files, and shows how they are doing.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-ctl",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 120,
    after_help = "Examples:\n  ipfs-cluster-ctl add -r photos\n  ipfs-cluster-ctl pin add --name notes --wait <CID>\n  \
        ipfs-cluster-ctl --enc json status --filter error"
)]
pub(crate) struct Arguments {
    /// Comma list of API multiaddresses; the next is tried when one cannot be reached
    #[arg(
        short = 'l',
        long,
        value_name = "ADDRESSES",
        default_value = "/ip4/127.0.0.1/tcp/9094",
        value_delimiter = ','
    )]
    pub(crate) host: Vec<String>,
    /// Cluster secret in hex, for libp2p endpoints only
    #[arg(long, value_name = "HEX", default_value = "", hide_default_value = true)]
    pub(crate) secret: Hidden,
    /// Speak HTTPS
    #[arg(short = 's', long)]
    pub(crate) https: bool,
    /// With --https: accept any certificate
    #[arg(long)]
    pub(crate) no_check_certificate: bool,
    /// How answers are printed
    #[arg(long, visible_alias = "enc", value_enum, default_value_t)]
    pub(crate) encoding: Encoding,
    /// Seconds a request may take; 0 means no limit
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) timeout: u64,
    /// Say on the standard error which endpoints are used
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// user[:password]; implies --https unless --force-http is given
    #[arg(long, value_name = "CREDENTIALS", env = "CLUSTER_CREDENTIALS", hide_env_values = true)]
    pub(crate) basic_auth: Option<Hidden>,
    /// Send --basic-auth over plain HTTP
    #[arg(short, long)]
    pub(crate) force_http: bool,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A text that is not printed.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// For people
    #[default]
    Text,
    /// For programs: one document per item
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the peer that answers, and its IPFS node
    Id,
    /// List and remove members of the cluster
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Peers(PeersCommand),
    /// Add files and directories, and pin them
    #[command(after_help = "Examples:\n  ipfs-cluster-ctl add -r --name photos photos\n  \
        ipfs-cluster-ctl add -rmin 2 -rmax 3 --quieter a.txt b.txt\n  \
        ipfs-cluster-ctl add --format car --wait backup.car")]
    Add(Box<AddArguments>),
    /// Pin, unpin and list content
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Pin(PinCommand),
    /// Show how pins are doing
    #[command(after_help = "Statuses for --filter: cluster_error, pin_error, unpin_error, error, pinned, pinning, \
        pin_queued, unpinning, unpin_queued, queued, unpinned, remote, sharded, unexpectedly_unpinned")]
    Status(StatusArguments),
    /// Try again what failed
    Recover(RecoverArguments),
    /// Print the version of the peer that answers
    Version,
    /// Show connections, metrics and alerts
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Health(HealthCommand),
    /// List what lost when writes made apart were merged, newest first
    #[command(
        after_help = "A peer that no quorum answers takes writes all the same (consensus mode crdt); they are merged when a \
        quorum is back. Where two of them contradict each other, one stands and the other is listed here: by whom it \
        was, and with --enc json what it wanted, so that it can be asked for again."
    )]
    Events(EventsArguments),
    /// Manage the IPFS nodes
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Ipfs(IpfsCommand),
    /// List all commands
    #[command(hide = true)]
    Commands,
}

/// `peers`.
#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// List the members
    Ls,
    /// Remove a member; its content is pinned elsewhere
    Rm {
        /// The member
        #[arg(value_name = "PEER-ID")]
        peer: String,
    },
}

/// `pin`.
#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Pin content, or change the options of a pin
    #[command(after_help = "Examples:\n  ipfs-cluster-ctl pin add --name notes -rmin 2 -rmax 3 <CID>\n  \
        ipfs-cluster-ctl pin add --wait --wait-timeout 5m --expire-in 720h /ipns/example.org/docs")]
    Add(Box<PinAddArguments>),
    /// Unpin content
    Rm {
        /// CID or IPFS path
        #[arg(value_name = "CID|PATH")]
        path: String,
        /// What is awaited and printed
        #[command(flatten)]
        after: AfterArguments,
    },
    /// Pin new content with the options of an existing pin, whose blocks help to fetch it
    Update {
        /// The existing pin
        #[arg(value_name = "EXISTING-CID")]
        from: Cid,
        /// What is pinned now
        #[arg(value_name = "NEW-CID|PATH")]
        path: String,
        /// Name of the new pin
        #[arg(short, long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
        name: String,
        /// When the new pin ends by itself, like 720h
        #[arg(long, value_name = "DURATION")]
        expire_in: Option<GoDuration>,
        /// What is awaited and printed
        #[command(flatten)]
        after: AfterArguments,
    },
    /// List the pinset
    Ls {
        /// Only this pin
        cid: Option<Cid>,
        /// Comma list of pin, meta-pin, clusterdag-pin and shard-pin
        #[arg(long, default_value = "all")]
        filter: String,
    },
}

/// Flags of `pin add`.
#[derive(Args, Debug)]
pub(crate) struct PinAddArguments {
    /// CID or IPFS path
    #[arg(value_name = "CID|PATH")]
    pub(crate) path: String,
    /// Sets both replication factors; -1 everywhere
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) replication: i32,
    /// What the pin gets
    #[command(flatten)]
    pub(crate) options: OptionArguments,
    /// How much of the DAG is kept
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: ModeArgument,
    /// What is awaited and printed
    #[command(flatten)]
    pub(crate) after: AfterArguments,
}

/// Options of a pin.
#[derive(Args, Debug)]
pub(crate) struct OptionArguments {
    /// Least number of copies; -1 everywhere, 0 the cluster's default
    #[arg(long, alias = "rmin", value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) replication_min: i32,
    /// Wanted number of copies; -1 everywhere, 0 the cluster's default
    #[arg(long, alias = "rmax", value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) replication_max: i32,
    /// Comma list of peers to prefer
    #[arg(long, alias = "allocs", value_name = "PEER-IDS", value_delimiter = ',')]
    pub(crate) allocations: Vec<String>,
    /// A name for people
    #[arg(short, long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) name: String,
    /// When the pin ends by itself, like 720h
    #[arg(long, value_name = "DURATION")]
    pub(crate) expire_in: Option<GoDuration>,
    /// Free text by key; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) metadata: Vec<(String, String)>,
}

/// What is awaited and printed after a pin changed.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AfterArguments {
    /// Print the pin instead of its status
    #[arg(long, alias = "ns")]
    pub(crate) no_status: bool,
    /// Wait until peers have done it
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// With --wait: how many peers are enough [default: the least number of copies]
    #[arg(long, alias = "wl", value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) wait_limit: u32,
    /// With --wait: how long at most, like 5m [default: no limit]
    #[arg(long, alias = "wt", value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    pub(crate) wait_timeout: GoDuration,
}

/// Flags of `add`.
#[derive(Args, Debug)]
pub(crate) struct AddArguments {
    /// Files, directories and http(s) URLs
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Add directories with all that is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// With --recursive: add names that begin with a dot too
    #[arg(short = 'H', long)]
    pub(crate) hidden: bool,
    /// Put everything into one directory; implied by several paths
    #[arg(short, long)]
    pub(crate) wrap_with_directory: bool,
    /// Make leaves plain blocks
    #[arg(long)]
    pub(crate) raw_leaves: bool,
    /// Refer to URLs instead of copying what they lead to
    #[arg(long)]
    pub(crate) nocopy: bool,
    /// Send blocks to the contacted peer only; the pin decides who else fetches them
    #[arg(long)]
    pub(crate) local: bool,
    /// Add without pinning
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Print nothing before all is added
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Print CIDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print the last CID only
    #[arg(short = 'Q', long)]
    pub(crate) quieter: bool,
    /// Wait until the content is pinned
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: how long at most, like 5m [default: no limit]
    #[arg(long, alias = "wt", value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    pub(crate) wait_timeout: GoDuration,
    /// What the pin gets
    #[command(flatten)]
    pub(crate) options: OptionArguments,
    /// What is uploaded
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: FormatArgument,
    /// Shape of a file's DAG: balanced or trickle [default: balanced]
    #[arg(long, default_value = "", hide_default_value = true, value_parser = ["", "balanced", "trickle"])]
    pub(crate) layout: String,
    /// How files are cut: size-<bytes>, buzhash, rabin-<min>-<average>-<max>
    #[arg(short = 's', long, default_value = "size-262144")]
    pub(crate) chunker: String,
    /// Version of CIDs: 0, or 1, which implies --raw-leaves
    #[arg(long, value_name = "VERSION", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1))]
    pub(crate) cid_version: u32,
    /// Hash function; another than the default implies --cid-version 1
    #[arg(long, value_name = "NAME", default_value = "sha2-256")]
    pub(crate) hash: String,
}

/// Flags of `status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArguments {
    /// Only these pins
    #[arg(value_name = "CID")]
    pub(crate) cids: Vec<Cid>,
    /// Ask the contacted peer only
    #[arg(long)]
    pub(crate) local: bool,
    /// Comma list of statuses; used when no CID is given
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
}

/// Flags of `recover`.
#[derive(Args, Debug)]
pub(crate) struct RecoverArguments {
    /// Only this pin
    pub(crate) cid: Option<Cid>,
    /// On the contacted peer only
    #[arg(long)]
    pub(crate) local: bool,
}

/// Flags of `events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArguments {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = Event::DEFAULT_LIMIT)]
    pub(crate) limit: usize,
    /// Only those before this place, like 42-0: it stands at the start of every line
    #[arg(long, value_name = "PLACE")]
    pub(crate) before: Option<EventPlace>,
}

/// `health`.
#[derive(Debug, Subcommand)]
pub(crate) enum HealthCommand {
    /// Draw who is connected to whom, in the language of Graphviz
    Graph {
        /// Write to this file
        #[arg(short, long)]
        file: Option<std::path::PathBuf>,
        /// Draw IPFS nodes outside of the cluster too
        #[arg(long)]
        all_ipfs_peers: bool,
    },
    /// List the names of metrics, or the metrics of a name
    Metrics {
        /// Like ping or freespace
        name: Option<String>,
    },
    /// List metrics that were not renewed in time
    Alerts,
}

/// `ipfs`.
#[derive(Debug, Subcommand)]
pub(crate) enum IpfsCommand {
    /// Collect garbage
    Gc {
        /// On the node of the contacted peer only
        #[arg(long)]
        local: bool,
    },
}

/// `--mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArgument {
    /// All of it
    #[default]
    Recursive,
    /// The root block
    Direct,
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArgument {
    /// Files and directories
    #[default]
    Unixfs,
    /// A CAR archive with one root
    Car,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("metadata is written as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::spelling::normalise;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let line = line.replace("CID", CID);
        let words = line.split_whitespace().map(Into::into);
        Arguments::try_parse_from(normalise(words, &Arguments::command()))
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
    fn help_stays_within_120_columns() {
        fn check(mut command: clap::Command) {
            for text in [command.render_help(), command.render_long_help()] {
                for line in text.to_string().lines() {
                    assert!(line.chars().count() <= 120, "{line}");
                }
            }
            command.get_subcommands().cloned().for_each(check);
        }
        // What a terminal of any greater width gets.
        let mut command = Arguments::command().term_width(120);
        command.build();
        check(command);
    }
}
