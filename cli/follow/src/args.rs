//! `ipfs-cluster-follow [--config FOLDER] [<clusterName> [command]]`.
//!
//! The name of the cluster comes before the command and may be any word, so the line is read in two steps: what stands
//! before the name, and what stands behind it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use cluster_peer::config::ConfigFolder;

/// The folder of all clusters inside the home folder, when no other is named.
const DEFAULT_FOLDER: &str = ".ipfs-cluster-follow";

/// Follows clusters that others run: keeps a copy of their pinset, and of the content that is meant for everybody.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-follow",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    override_usage = "ipfs-cluster-follow [--config <FOLDER>] [<CLUSTER> [COMMAND]]",
    max_term_width = 120,
    after_help = "Commands of a cluster:\n  init <URL>  Begin to follow a cluster whose configuration is at URL\n  run         \
                  Run the peer until it is told to stop\n  list        List its pins and how they are doing here\n  info  \
                      Say what there is and what is online"
)]
struct Line {
    /// Folder with the folders of the clusters [default: $HOME/.ipfs-cluster-follow]
    #[arg(long, value_name = "FOLDER", env = "IPFS_CLUSTER_PATH")]
    config: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Name of the cluster, and what to do
    #[arg(value_name = "CLUSTER", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// What to do with one cluster.
#[derive(Debug, Parser)]
#[command(name = "ipfs-cluster-follow", disable_version_flag = true, max_term_width = 120)]
struct ClusterLine {
    /// What to do.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begin to follow a cluster
    Init(InitArguments),
    /// Run the peer until it is told to stop
    Run(RunArguments),
    /// List the pins and how they are doing here
    List,
    /// Say what there is and what is online
    Info,
}

/// Flags of `init`.
#[derive(Args, Debug)]
pub(crate) struct InitArguments {
    /// Where the configuration is fetched from at every start: a URL, or a name that DNSLink leads from
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) gateway: Gateway,
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// Begin to follow the cluster first, unless that was done before
    #[arg(long, value_name = "URL")]
    pub(crate) init: Option<String>,
    #[command(flatten)]
    pub(crate) gateway: Gateway,
}

/// `--gateway`.
#[derive(Args, Debug)]
pub(crate) struct Gateway {
    /// The IPFS gateway that resolves names
    #[arg(long, hide = true, env = "IPFS_GATEWAY", default_value = "127.0.0.1:8080")]
    pub(crate) gateway: String,
}

/// A command line.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The folder of all clusters.
    pub(crate) root: PathBuf,
    /// What is to be done with a cluster; nothing: list them.
    pub(crate) wish: Option<Wish>,
}

/// What is to be done with a cluster.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Its name.
    pub(crate) cluster: String,
    /// What to do; nothing: tell of it.
    pub(crate) command: Option<Command>,
}

impl Parsed {
    /// The folder of a cluster.
    pub(crate) fn folder(&self, cluster: &str) -> ConfigFolder {
        ConfigFolder::new(self.root.join(cluster))
    }
}

/// Reads a command line.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Parsed, clap::Error> {
    let line = Line::try_parse_from(words)?;
    let wrong = |text: &str| Line::command().error(clap::error::ErrorKind::InvalidValue, text);
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty());
    let root = match line.config {
        Some(root) => root,
        None => PathBuf::from(home().ok_or_else(|| wrong("HOME is not set, name a folder with --config"))?)
            .join(DEFAULT_FOLDER),
    };
    let mut words = line.words.into_iter();
    let Some(cluster) = words.next() else { return Ok(Parsed { root, wish: None }) };
    let cluster = cluster.into_string().map_err(|_| wrong("the name of the cluster is not UTF-8"))?;
    // It becomes the name of a folder.
    if cluster.is_empty()
        || cluster.contains(['/', '\0'])
        || cluster == "."
        || cluster == ".."
        || cluster.starts_with('-')
    {
        return Err(wrong(&format!("{cluster:?} cannot be the name of a cluster")));
    }
    let name = format!("ipfs-cluster-follow {cluster}");
    let matches = ClusterLine::command()
        .bin_name(name.clone())
        .try_get_matches_from(std::iter::once(OsString::from(name)).chain(words))?;
    let ClusterLine { command } = clap::FromArgMatches::from_arg_matches(&matches)?;
    Ok(Parsed { root, wish: Some(Wish { cluster, command }) })
}

/// The help that belongs to a cluster.
pub(crate) fn help_for(cluster: &str) -> String {
    let name = format!("ipfs-cluster-follow {cluster}");
    ClusterLine::command().bin_name(name).render_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Parsed, clap::Error> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_trees_are_sound() {
        Line::command().debug_assert();
        ClusterLine::command().debug_assert();
    }

    #[test]
    fn command_lines_of_the_original_are_understood() {
        assert!(line("ipfs-cluster-follow --config /x").unwrap().wish.is_none());
        let wish = line("ipfs-cluster-follow --config /x list").unwrap().wish.unwrap();
        assert!(wish.cluster == "list" && wish.command.is_none(), "any word may name a cluster");
        let parsed = line("ipfs-cluster-follow --config /x c init http://a/b").unwrap();
        assert_eq!(parsed.folder("c").path(), PathBuf::from("/x/c"));
        assert!(matches!(parsed.wish.unwrap().command, Some(Command::Init(init)) if init.url == "http://a/b"));
        let wish = line("ipfs-cluster-follow --config /x c run --init a.org --gateway g:1").unwrap().wish.unwrap();
        let Some(Command::Run(run)) = wish.command else { panic!("it runs") };
        assert_eq!((run.init.as_deref(), run.gateway.gateway.as_str()), (Some("a.org"), "g:1"));
        for word in ["list", "info"] {
            assert!(
                line(&format!("ipfs-cluster-follow --config /x c {word}")).unwrap().wish.unwrap().command.is_some()
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        use clap::error::ErrorKind;
        let kind = |text: &str| line(text).unwrap_err().kind();
        assert_eq!(kind("ipfs-cluster-follow --config /x c dance"), ErrorKind::InvalidSubcommand);
        assert_eq!(kind("ipfs-cluster-follow --config /x c init"), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("ipfs-cluster-follow --config /x c --help"), ErrorKind::DisplayHelp);
        for name in ["..", "a/b", "-c"] {
            assert!(line(&format!("ipfs-cluster-follow --config /x {name} info")).is_err(), "{name}");
        }
    }
}
