//! Flags and subcommands, with their help.
//!
//! Names, short forms and defaults are those of the original, so that units and scripts keep working; what is our own
//! is `--ipfs`, `demo`, `cat`, `hash-password`, `state recover`, `--encoding` of `state crdt info`, and `--yes` beside `--force`.

#![expect(rustdoc::invalid_html_tags, reason = "these comments are the help on a terminal")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
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
    max_term_width = 120,
    after_help = "Examples:\n  ipfs-cluster-service init\n  ipfs-cluster-service daemon\n  \
        ipfs-cluster-service --config /srv/cluster state export --file pins.json"
)]
pub(crate) struct Arguments {
    /// Folder with configuration and state [default: $HOME/.ipfs-cluster]
    #[arg(
        short,
        long,
        value_name = "FOLDER",
        env = "IPFS_CLUSTER_PATH",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask before something is overwritten
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Log everything at debug, libraries too
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
        if let Some(path) = self.config.as_ref().filter(|path| !path.as_os_str().is_empty()) {
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
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service init\n\
        \x20 ipfs-cluster-service init --consensus raft --custom-secret\n\
        \x20 ipfs-cluster-service init --peers /dns4/a.example.org/tcp/9096/p2p/<PEER-ID>\n\
        \x20 ipfs-cluster-service init https://example.org/service.json")]
    Init(InitArguments),
    /// Run the peer until it is told to stop
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service daemon\n\
        \x20 ipfs-cluster-service daemon --bootstrap /dns4/a.example.org/tcp/9096/p2p/<PEER-ID>\n\
        \x20 ipfs-cluster-service --loglevel info,raft:debug daemon")]
    Daemon(DaemonArguments),
    /// Export, import or remove the pinset of a peer, or look at it
    State(StateArguments),
    /// Show a whole cluster at work on this machine: real content, a lost peer, its repair
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service demo\n\
        \x20 ipfs-cluster-service demo --peers 5 --keep")]
    Demo(DemoArguments),
    /// Fetch a file from an IPFS node and write it to the standard output
    #[command(hide = true)]
    Cat(CatArguments),
    /// Print the hash of a password, to be written into basic_auth_credentials
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service hash-password\n\
        \x20 ipfs-cluster-service hash-password < password.txt")]
    HashPassword,
    /// Print the version
    #[command(after_help = "Example:\n  ipfs-cluster-service version")]
    Version,
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
        folder: Option<PathBuf>,
    },
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
    #[arg(long, value_enum)]
    pub(crate) datastore: Option<DatastoreArgument>,
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
    bootstrap: Vec<Address>,
    /// Accepted for compatibility, without effect
    #[arg(short, long)]
    pub(crate) upgrade: bool,
    /// Leave the cluster for good at shutdown
    #[arg(short = 'x', long, hide = true)]
    pub(crate) leave: bool,
    /// Serve metrics for Prometheus (observations.metrics)
    #[arg(long)]
    pub(crate) stats: bool,
    /// Send traces (accepted, but not sent yet)
    #[arg(long)]
    pub(crate) tracing: bool,
    /// Do not add the peers of --bootstrap to the trusted ones
    #[arg(long)]
    pub(crate) no_trust: bool,
}

impl DaemonArguments {
    /// The peers whose cluster to join.
    pub(crate) fn bootstrap(&self) -> Vec<Multiaddr> {
        self.bootstrap.iter().filter_map(|address| address.0.clone()).collect()
    }
}

/// An address, or nothing where a list has an empty entry.
#[derive(Clone, Debug)]
struct Address(Option<Multiaddr>);

impl FromStr for Address {
    type Err = <Multiaddr as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        Ok(Self(if text.is_empty() { None } else { Some(text.parse()?) }))
    }
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
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service state export --file pins.json\n\
        \x20 ipfs-cluster-service state export | grep -c .")]
    Export(ExportArguments),
    /// Replace the pinset of a stopped peer by that of an export
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service state import pins.json\n\
        \x20 ipfs-cluster-service state import --force -rmin 2 -rmax 3 < pins.json")]
    Import(ImportArguments),
    /// Remove the state of a stopped peer
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service state cleanup\n\
        \x20 ipfs-cluster-service state cleanup --force")]
    Cleanup(CleanupArguments),
    /// The shards as CRDT documents
    #[command(subcommand)]
    Crdt(CrdtCommand),
    /// Go on when most voters are lost for good
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-service state recover --force-new-cluster")]
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
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service state crdt info\n\
        \x20 ipfs-cluster-service state crdt info --enc json")]
    Info(InfoArguments),
    /// Print shards, epochs and tails as a graph in the DOT language
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-service state crdt dot | dot -Tsvg > shards.svg\n\
        \x20 ipfs-cluster-service state crdt dot --file shards.dot")]
    Dot(DotArguments),
    /// Have the next start check every record against the digests
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-service state crdt mark-dirty")]
    MarkDirty,
    /// Take the mark of mark-dirty away
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-service state crdt mark-clean")]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split_whitespace().map(OsString::from);
        Arguments::try_parse_from(cluster_terminal::normalise(words, &Arguments::command()).words)
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
            "ipfs-cluster-service -force=true init --randomports=false -s=1",
            "ipfs-cluster-service daemon --bootstrap= --upgrade=false",
            "ipfs-cluster-service version",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn an_empty_variable_asks_for_nothing() {
        let Some(Command::Daemon(daemon)) =
            parse("ipfs-cluster-service daemon -j ,/ip4/1.2.3.4/tcp/1,").unwrap().command
        else {
            panic!("another command was read")
        };
        assert_eq!(daemon.bootstrap().len(), 1);
        let empty = Arguments { config: Some(PathBuf::new()), ..parse("ipfs-cluster-service version").unwrap() };
        assert!(empty.folder().is_err() || empty.folder().unwrap().path().ends_with(DEFAULT_FOLDER));
    }

    #[test]
    fn help_fits_every_terminal_and_shows_examples() {
        let faults = cluster_terminal::checks::faults_of_help(&Arguments::command());
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn the_list_of_the_surface_is_complete() {
        let surface = include_str!("../tests/surface.txt");
        let differences = cluster_terminal::checks::golden::differences(surface, &Arguments::command());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
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
