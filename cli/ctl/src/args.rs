//! Flags and subcommands, with their help.
//!
//! Names, short forms and defaults are those of the original, so that scripts keep working. How flags may be written
//! is the business of `cluster_terminal`.

#![expect(
    rustdoc::invalid_html_tags,
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help on a terminal"
)]

mod hidden;
mod token;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_client::Listing;
use cluster_types::{Cid, Event, EventPlace, GoDuration, UnixFsProfile};

pub(crate) use hidden::Hidden;
pub(crate) use token::{ScopeArgument, TokenArguments};

/// Speaks to a peer of an IPFS cluster: pins content, adds files, and shows how they are doing.
#[derive(Clone, Debug, Parser)]
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
    /// Send --basic-auth or --token over plain HTTP
    #[arg(short, long)]
    pub(crate) force_http: bool,
    /// A token of POST /token, in the place of --basic-auth; implies --https unless --force-http is given
    #[arg(long, value_name = "TOKEN", env = "CLUSTER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Hidden>,
    /// With --https: a PEM file of certificates to trust besides those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<std::path::PathBuf>,
    /// Ask again every so many seconds, 2 if none are given: status, recover, pin ls, peers ls and health
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) watch: Option<u64>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
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
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the peer that answers, and its IPFS node
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl id\n\
        \x20 ipfs-cluster-ctl --host /dns4/cluster.example.org/tcp/9094 --basic-auth ann:secret id")]
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
    #[command(
        after_help = "Examples:\n  ipfs-cluster-ctl status --filter error\n  ipfs-cluster-ctl status <CID> <CID>\n  \
        ipfs-cluster-ctl --watch status --local --filter queued,pinning\n\nStatuses for --filter: cluster_error, pin_error, unpin_error, error, pinned, pinning, \
        pin_queued, unpinning, unpin_queued, queued, unpinned, remote, sharded, unexpectedly_unpinned"
    )]
    Status(StatusArguments),
    /// Try again what failed
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl recover\n\
        \x20 ipfs-cluster-ctl recover --local <CID>")]
    Recover(RecoverArguments),
    /// Print the version of the peer that answers
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-ctl version")]
    Version,
    /// Show connections, metrics and alerts
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Health(HealthCommand),
    /// List what lost when writes made apart were merged, newest first
    #[command(
        after_help = "Examples:\n  ipfs-cluster-ctl events\n  ipfs-cluster-ctl --enc json events --limit 10 --before 42-0\n\n\
        A peer that no quorum answers takes writes all the same (consensus mode crdt); they are merged when a \
        quorum is back. Where two of them contradict each other, one stands and the other is listed here: by whom it \
        was, and with --enc json what it wanted, so that it can be asked for again."
    )]
    Events(EventsArguments),
    /// Manage the IPFS nodes
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true)]
    Ipfs(IpfsCommand),
    /// Print a token for the user of --basic-auth or --token, or take back all tokens of that user
    Token(TokenArguments),
    /// List all commands
    #[command(hide = true)]
    Commands,
    /// Print what makes a shell complete commands and flags
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: cluster_terminal::Shell,
    },
    /// Print the man page, or write those of all commands into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: Option<std::path::PathBuf>,
    },
}

/// `peers`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// List the members
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl peers ls\n\
        \x20 ipfs-cluster-ctl --enc json peers ls\n\
        \x20 ipfs-cluster-ctl --watch peers ls")]
    Ls,
    /// Remove a member; its content is pinned elsewhere
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-ctl peers rm 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Rm {
        /// The member
        #[arg(value_name = "PEER-ID")]
        peer: String,
    },
}

/// `pin`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Pin content, or change the options of a pin
    #[command(after_help = "Examples:\n  ipfs-cluster-ctl pin add --name notes -rmin 2 -rmax 3 <CID>\n  \
        ipfs-cluster-ctl pin add --wait --wait-timeout 5m --expire-in 720h /ipns/example.org/docs")]
    Add(Box<PinAddArguments>),
    /// Unpin content
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl pin rm <CID>\n\
        \x20 ipfs-cluster-ctl pin rm --wait --wait-timeout 1m <CID>")]
    Rm {
        /// CID or IPFS path
        #[arg(value_name = "CID|PATH")]
        path: String,
        /// What is awaited and printed
        #[command(flatten)]
        after: AfterArguments,
    },
    /// Pin new content with the options of an existing pin, whose blocks help to fetch it
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl pin update <OLD-CID> <NEW-CID>\n\
        \x20 ipfs-cluster-ctl pin update --name \"site 2\" --wait <OLD-CID> /ipns/example.org")]
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
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl pin ls\n\
        \x20 ipfs-cluster-ctl pin ls <CID>\n\
        \x20 ipfs-cluster-ctl --enc json pin ls --filter pin,meta-pin\n\
        \x20 ipfs-cluster-ctl pin ls --name-prefix photos/ --metadata owner=ann")]
    Ls {
        /// Only this pin
        cid: Option<Cid>,
        /// Comma list of pin, meta-pin, clusterdag-pin and shard-pin
        #[arg(long, default_value = "all")]
        filter: String,
        #[command(flatten)]
        search: SearchArguments,
    },
}

/// What pins are searched for; one must fit all of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SearchArguments {
    /// Only pins whose name begins with this; used when no CID is given
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,
    /// Only pins with this in their metadata; used when no CID is given, may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    metadata: Vec<(String, String)>,
}

impl SearchArguments {
    /// What it finds of what a filter lets through.
    pub(crate) fn among(self, filter: &str) -> Listing {
        let Self { name_prefix, metadata } = self;
        Listing { name_prefix, metadata: metadata.into_iter().collect(), ..Listing::of(filter) }
    }
}

/// Flags of `pin add`.
#[derive(Args, Clone, Debug)]
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
#[derive(Args, Clone, Debug)]
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
    /// With --wait: how many peers are enough, -1 all [default: the least number of copies]
    #[arg(
        long,
        alias = "wl",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) wait_limit: i32,
    /// With --wait: how long at most, like 5m [default: no limit]
    #[arg(long, alias = "wt", value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    pub(crate) wait_timeout: GoDuration,
}

/// Flags of `add`.
#[derive(Args, Clone, Debug)]
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
    /// Spread the content over peers, in shards
    #[arg(long)]
    pub(crate) shard: bool,
    /// With --shard: a shard has fewer bytes than this [default: 100 MiB]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    pub(crate) shard_size: u64,
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
    /// How files are cut: size-<bytes>, buzhash, rabin-<min>-<average>-<max> [default: size-262144]
    #[arg(short = 's', long)]
    pub(crate) chunker: Option<String>,
    /// Version of CIDs: 0, or 1, which implies --raw-leaves [default: 0]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(0..=1))]
    pub(crate) cid_version: Option<u32>,
    /// Hash function; another than the default implies --cid-version 1 [default: sha2-256]
    #[arg(long, value_name = "NAME")]
    pub(crate) hash: Option<String>,
    /// Choices with a name, for the CIDs that others get by it: unixfs-v0-2015 or unixfs-v1-2025 [default: the first]
    #[arg(long, value_name = "NAME", value_parser = profile)]
    pub(crate) profile: Option<UnixFsProfile>,
    /// Children of a node of a file [default: 174]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_file_links: Option<usize>,
    /// Entries of a directory in one block [default: its size decides]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_directory_links: Option<usize>,
    /// Children of a node of a sharded directory: a power of two from 8 to 1024 [default: 256]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_hamt_fanout: Option<usize>,
}

fn profile(name: &str) -> Result<UnixFsProfile, String> {
    let known = || UnixFsProfile::ALL.map(UnixFsProfile::name).join(" or ");
    UnixFsProfile::by_name(name).ok_or_else(|| format!("a profile is {}", known()))
}

/// Flags of `status`.
#[derive(Args, Clone, Debug)]
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
    #[command(flatten)]
    pub(crate) search: SearchArguments,
}

/// Flags of `recover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecoverArguments {
    /// Only this pin
    pub(crate) cid: Option<Cid>,
    /// On the contacted peer only
    #[arg(long)]
    pub(crate) local: bool,
}

/// Flags of `events`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EventsArguments {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = Event::DEFAULT_LIMIT)]
    pub(crate) limit: usize,
    /// Only those before this place, like 42-0: it stands at the start of every line
    #[arg(long, value_name = "PLACE")]
    pub(crate) before: Option<EventPlace>,
}

/// `health`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HealthCommand {
    /// Draw who is connected to whom, in the language of Graphviz
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl health graph | dot -Tsvg > cluster.svg\n\
        \x20 ipfs-cluster-ctl health graph --file cluster.dot --all-ipfs-peers")]
    Graph {
        /// Write to this file
        #[arg(short, long)]
        file: Option<std::path::PathBuf>,
        /// Draw IPFS nodes outside of the cluster too
        #[arg(long)]
        all_ipfs_peers: bool,
    },
    /// List the names of metrics, or the metrics of a name
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl health metrics\n\
        \x20 ipfs-cluster-ctl health metrics freespace")]
    Metrics {
        /// Like ping or freespace
        name: Option<String>,
    },
    /// List metrics that were not renewed in time
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl health alerts\n\
        \x20 ipfs-cluster-ctl --watch=10 health alerts")]
    Alerts,
    /// List what the peer sends to others and receives from them, by protocol
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-ctl health bandwidth")]
    Bandwidth,
}

/// `ipfs`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum IpfsCommand {
    /// Collect garbage
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-ctl ipfs gc\n\
        \x20 ipfs-cluster-ctl ipfs gc --local")]
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
mod tests;
