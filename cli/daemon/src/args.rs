//! Flags and subcommands, with their help.
//!
//! Names, short forms and defaults are those of the original, so that units and scripts keep working; what is our own
//! is `--ipfs`, `demo`, `cat`, `state recover`, `--encoding` of `state crdt info`, and `--yes` beside `--force`.

#![expect(rustdoc::invalid_html_tags, reason = "these comments are the help on a terminal")]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_peer::config::{ConfigFolder, ConsensusName, DatastoreName, NodeKind};
use cluster_types::Multiaddr;

/// The configuration folder inside the home folder, when no other is named.
const DEFAULT_FOLDER: &str = ".ipfs-cluster";

/// A peer of an IPFS cluster: agrees with the others on what is kept, and makes its IPFS node keep its share.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-service",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    max_term_width = 120
)]
pub(crate) struct Arguments {
    /// Folder with configuration and state [default: $HOME/.ipfs-cluster]
    #[arg(short, long, value_name = "FOLDER", env = "IPFS_CLUSTER_PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask before something is overwritten
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Log everything at debug
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Comma list of a level and component:level
    #[arg(short, long, value_name = "LEVELS", env = "IPFS_CLUSTER_LOG_LEVEL", default_value = "info")]
    pub(crate) loglevel: String,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Arguments {
    /// The configuration folder.
    pub(crate) fn folder(&self) -> anyhow::Result<ConfigFolder> {
        if let Some(path) = &self.config {
            return Ok(ConfigFolder::new(path));
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home =
            home.ok_or_else(|| anyhow::anyhow!("finding the folder: HOME is not set, name a folder with --config"))?;
        Ok(ConfigFolder::new(PathBuf::from(home).join(DEFAULT_FOLDER)))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a configuration and an identity
    Init(InitArguments),
    /// Run the peer until it is told to stop
    Daemon(DaemonArguments),
    /// Export, import or remove the pinset of a peer, or look at it
    State(StateArguments),
    /// Show a whole cluster at work on this machine: real content, a lost peer, its repair
    Demo(DemoArguments),
    /// Fetch a file from an IPFS node and write it to the standard output
    #[command(hide = true)]
    Cat(CatArguments),
    /// Print the version
    Version,
    /// A word that is no command.
    #[command(external_subcommand)]
    Unknown(Vec<OsString>),
}

/// Flags of `init`.
#[derive(Args, Debug)]
pub(crate) struct InitArguments {
    /// Where the configuration is fetched from at every start
    #[arg(value_name = "SOURCE-URL")]
    pub(crate) source: Option<String>,
    /// What happens to writes while most peers are away: accept them for later (crdt) or refuse them (raft)
    #[arg(long, value_enum, default_value_t)]
    pub(crate) consensus: ConsensusArgument,
    /// Accepted for compatibility; state is kept in RocksDB
    #[arg(long, value_enum, default_value_t)]
    pub(crate) datastore: DatastoreArgument,
    /// The IPFS node: a Kubo beside the peer, or one inside it that needs no other program
    #[arg(long, value_enum, default_value_t)]
    pub(crate) ipfs: IpfsArgument,
    /// Ask for the cluster secret instead of making a new one
    #[arg(short = 's', long)]
    pub(crate) custom_secret: bool,
    /// Comma list of multiaddresses of known peers, each with /p2p/<id>
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
    pub(crate) peers: Vec<String>,
    /// Overwrite without asking
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Listen on free ports instead of the usual ones
    #[arg(long)]
    pub(crate) randomports: bool,
}

/// Flags of `daemon`.
#[derive(Args, Debug)]
pub(crate) struct DaemonArguments {
    /// Comma list of multiaddresses of peers whose cluster to join
    #[arg(short = 'j', long, value_delimiter = ',', value_name = "ADDRESSES")]
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Accepted for compatibility, without effect
    #[arg(short, long)]
    pub(crate) upgrade: bool,
    /// Leave the cluster for good at shutdown
    #[arg(short = 'x', long, hide = true)]
    pub(crate) leave: bool,
    /// Serve metrics for Prometheus (accepted, but not served yet)
    #[arg(long)]
    pub(crate) stats: bool,
    /// Send traces (accepted, but not sent yet)
    #[arg(long)]
    pub(crate) tracing: bool,
    /// Do not add the peers of --bootstrap to the trusted ones
    #[arg(long)]
    pub(crate) no_trust: bool,
}

/// Subcommands of `state`.
#[derive(Args, Debug)]
pub(crate) struct StateArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: StateCommand,
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write the pinset as JSON, one pin a line
    Export(ExportArguments),
    /// Replace the pinset of a stopped peer by that of an export
    Import(ImportArguments),
    /// Remove the state of a stopped peer
    Cleanup(CleanupArguments),
    /// The shards as CRDT documents
    #[command(subcommand)]
    Crdt(CrdtCommand),
    /// Go on when most voters are lost for good
    Recover(RecoverArguments),
}

/// Flags of `state recover`.
#[derive(Args, Debug)]
pub(crate) struct RecoverArguments {
    /// Make this peer the only member of a new cluster that has its data
    #[arg(long, required = true)]
    pub(crate) force_new_cluster: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// What to do with the CRDT documents.
#[derive(Debug, Subcommand)]
pub(crate) enum CrdtCommand {
    /// Print shards, epochs, tails, digest and applied index
    Info(InfoArguments),
    /// Print shards, epochs and tails as a graph in the DOT language
    Dot(DotArguments),
    /// Have the next start check every record against the digests
    MarkDirty,
    /// Take the mark of mark-dirty away
    MarkClean,
}

/// Flags of `state export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArguments {
    /// Where to write it [default: the standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Flags of `state import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArguments {
    /// The export [default: the standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Do not ask before the pinset is replaced
    #[arg(short, long, short_alias = 'y', alias = "yes")]
    pub(crate) force: bool,
    /// Least number of copies of every pin, if above 0
    #[arg(long, visible_alias = "rmin", value_name = "COPIES", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) replication_min: i32,
    /// Wanted number of copies of every pin, if above 0
    #[arg(long, visible_alias = "rmax", value_name = "COPIES", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) replication_max: i32,
    /// Comma list of the peers that hold every pin
    #[arg(long, visible_alias = "allocs", value_delimiter = ',', value_name = "PEERS")]
    pub(crate) allocations: Vec<String>,
}

/// Flags of `state cleanup`.
#[derive(Args, Debug)]
pub(crate) struct CleanupArguments {
    /// Do not ask before the state is removed
    #[arg(short, long, short_alias = 'y', alias = "yes")]
    pub(crate) force: bool,
}

/// Flags of `state crdt dot`.
#[derive(Args, Debug)]
pub(crate) struct DotArguments {
    /// Where to write it [default: the standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Flags of `state crdt info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArguments {
    /// How to print it
    #[arg(long, visible_alias = "enc", value_enum, default_value_t)]
    pub(crate) encoding: Encoding,
}

/// `--encoding`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Encoding {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Flags of `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArguments {
    /// How many peers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=9))]
    pub(crate) peers: u16,
    /// Leave the cluster up at the end, and say how to talk to it
    #[arg(long)]
    pub(crate) keep: bool,
    /// What to add [default: a selection of Rust sources on this machine]
    #[arg(long, value_name = "DIR")]
    pub(crate) content: Option<PathBuf>,
}

/// Flags of `cat`.
#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    /// Multiaddress of the IPFS node to fetch from, with /p2p/<id>; may be given several times
    #[arg(long, required = true)]
    pub(crate) peer: Vec<Multiaddr>,
    /// What to fetch
    #[arg(value_name = "CID/PATH")]
    pub(crate) path: String,
}

/// `--consensus`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ConsensusArgument {
    #[default]
    Crdt,
    Raft,
}

impl From<ConsensusArgument> for ConsensusName {
    fn from(name: ConsensusArgument) -> Self {
        match name {
            ConsensusArgument::Crdt => Self::Crdt,
            ConsensusArgument::Raft => Self::Raft,
        }
    }
}

/// `--datastore`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum DatastoreArgument {
    #[default]
    Pebble,
    Badger3,
    Badger,
    #[value(name = "leveldb")]
    LevelDb,
}

impl From<DatastoreArgument> for DatastoreName {
    fn from(name: DatastoreArgument) -> Self {
        match name {
            DatastoreArgument::Pebble => Self::Pebble,
            DatastoreArgument::Badger3 => Self::Badger3,
            DatastoreArgument::Badger => Self::Badger,
            DatastoreArgument::LevelDb => Self::LevelDb,
        }
    }
}

/// `--ipfs`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum IpfsArgument {
    #[default]
    Kubo,
    Embedded,
}

impl From<IpfsArgument> for NodeKind {
    fn from(name: IpfsArgument) -> Self {
        match name {
            IpfsArgument::Kubo => Self::Kubo,
            IpfsArgument::Embedded => Self::Embedded,
        }
    }
}

/// Rewrites long flags that are written with one dash, as the original takes them, to two. What follows `--` stays.
pub(crate) fn normalise(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    arguments
        .map(|argument| {
            let Some(text) = argument.to_str() else { return argument };
            flags &= text != "--";
            let long = text.strip_prefix('-').filter(|name| {
                let name = name.split('=').next().unwrap_or_default();
                name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic())
            });
            match long {
                Some(name) if flags => OsString::from(format!("--{name}")),
                Some(_) | None => argument,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(normalise(line.split_whitespace().map(OsString::from)))
    }

    #[test]
    fn the_command_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn command_lines_of_the_original_are_understood() {
        for line in [
            "ipfs-cluster-service --config /x --loglevel info,raft:debug init --consensus raft --force",
            "ipfs-cluster-service -c /x -f -d init --consensus=crdt --datastore leveldb -s --randomports",
            "ipfs-cluster-service init --peers /ip4/1.2.3.4/tcp/1/p2p/x,/dns4/a/tcp/1/p2p/y",
            "ipfs-cluster-service -loglevel debug daemon -bootstrap /ip4/1.2.3.4/tcp/9096 --upgrade --no-trust",
            "ipfs-cluster-service daemon -j /ip4/1.2.3.4/tcp/9096 --leave --stats --tracing",
            "ipfs-cluster-service init https://example.org/service.json",
            "ipfs-cluster-service state crdt info",
            "ipfs-cluster-service state crdt info --enc json",
            "ipfs-cluster-service state recover --force-new-cluster -y",
            "ipfs-cluster-service state crdt dot --file /x",
            "ipfs-cluster-service state crdt mark-dirty",
            "ipfs-cluster-service state crdt mark-clean",
            "ipfs-cluster-service state export",
            "ipfs-cluster-service state export -f /x",
            "ipfs-cluster-service state import",
            "ipfs-cluster-service state import -f -rmin 2 --replication-max=3 -allocs a,b /x",
            "ipfs-cluster-service state import /x --force -rmax -1",
            "ipfs-cluster-service state cleanup --force",
            "ipfs-cluster-service version",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn global_flags_stand_before_the_command() {
        assert!(parse("ipfs-cluster-service version --config /x").is_err());
    }

    #[test]
    fn what_is_no_address_is_refused_before_anything_runs() {
        assert!(parse("ipfs-cluster-service daemon --bootstrap 1.2.3.4:9096").is_err());
        assert!(parse("ipfs-cluster-service demo --peers 2").is_err());
        assert!(parse("ipfs-cluster-service state recover --yes").is_err());
    }

    #[test]
    fn an_unknown_word_is_kept_for_the_help() {
        let arguments = parse("ipfs-cluster-service dance").unwrap();
        assert!(matches!(arguments.command, Some(Command::Unknown(words)) if words == ["dance"]));
    }
}
