//! `ipfs-cluster-follow [--config FOLDER] [<clusterName> [command]]`.
//!
//! The name of the cluster comes before the command and may be any word, so the line is read in two steps: what stands
//! before the name, and what stands behind it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use cluster_peer::config::ConfigFolder;
use cluster_terminal::{Shell, completions, man_pages, normalise};

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
    after_help = "Commands of a cluster:\n\
        \x20 init <URL>  Begin to follow a cluster whose configuration is at URL\n\
        \x20 run         Run the peer until it is told to stop\n\
        \x20 list        List its pins and how they are doing here\n\
        \x20 info        Say what there is and what is online\n\nExamples:\n\
        \x20 ipfs-cluster-follow\n\
        \x20 ipfs-cluster-follow maps run --init maps.example.org\n\
        \x20 ipfs-cluster-follow --completions bash > ~/.local/share/bash-completion/completions/ipfs-cluster-follow"
)]
struct Line {
    /// Folder with the folders of the clusters [default: $HOME/.ipfs-cluster-follow]
    #[arg(
        long,
        value_name = "FOLDER",
        env = "IPFS_CLUSTER_PATH",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    config: Option<PathBuf>,
    /// Print what makes a shell complete commands and flags
    #[arg(long, value_name = "SHELL", hide = true)]
    completions: Option<Shell>,
    /// Print the man page, or write those of all commands into a folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true, hide = true)]
    man: Option<Option<PathBuf>>,
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
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-follow maps init https://maps.example.org/service.json\n\
        \x20 ipfs-cluster-follow maps init maps.example.org --gateway 127.0.0.1:8080")]
    Init(InitArguments),
    /// Run the peer until it is told to stop
    #[command(after_help = "Examples:\n\
        \x20 ipfs-cluster-follow maps run\n\
        \x20 ipfs-cluster-follow maps run --init maps.example.org")]
    Run(RunArguments),
    /// List the pins and how they are doing here
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-follow maps list")]
    List,
    /// Say what there is and what is online
    #[command(after_help = "Example:\n\
        \x20 ipfs-cluster-follow maps info")]
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
    /// What is to be made from the tree of commands, instead of all else.
    pub(crate) generated: Option<Generated>,
}

/// What is made from the tree of commands. Words are names of clusters here, so these are flags.
#[derive(Debug)]
pub(crate) enum Generated {
    /// Completions for a shell.
    Completions(Shell),
    /// Man pages, into a folder or the first of them to the output.
    Man(Option<PathBuf>),
}

impl Generated {
    /// Writes it.
    pub(crate) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Completions(shell) => completions(*shell, &tree(), output),
            Self::Man(folder) => man_pages(&tree(), folder.as_deref(), output),
        }
    }
}

/// A line that cannot be carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why, or which help is asked for.
    pub(crate) error: clap::Error,
    /// The command that it speaks of.
    pub(crate) spoken: clap::Command,
}

/// Both steps of a line as one tree: for completions, man pages, and checks.
pub(crate) fn tree() -> clap::Command {
    let mut tree = Line::command().mut_arg("words", |words| words.hide(true).trailing_var_arg(false).num_args(0..=1));
    for command in ClusterLine::command().get_subcommands() {
        tree = tree.subcommand(command.clone());
    }
    tree
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
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Parsed, Box<Refused>> {
    let first = normalise(words, &Line::command());
    let refuse = |error: clap::Error| Box::new(Refused { error, spoken: first.command.clone() });
    let wrong = |text: &str| refuse(Line::command().error(clap::error::ErrorKind::InvalidValue, text));
    let line = Line::try_parse_from(&first.words).map_err(refuse)?;
    let completions = line.completions.map(Generated::Completions);
    let generated = completions.or(line.man.map(Generated::Man));
    let set = |path: &PathBuf| !path.as_os_str().is_empty();
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty());
    let root = match line.config.filter(set) {
        Some(root) => root,
        None => PathBuf::from(home().ok_or_else(|| wrong("HOME is not set, name a folder with --config"))?)
            .join(DEFAULT_FOLDER),
    };
    let mut words = line.words.into_iter();
    let Some(cluster) = words.next() else { return Ok(Parsed { root, wish: None, generated }) };
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
    let tree = ClusterLine::command().bin_name(name.clone());
    let second = normalise(std::iter::once(OsString::from(name)).chain(words), &tree);
    let matches = tree.try_get_matches_from(&second.words);
    let read = matches.and_then(|matches| clap::FromArgMatches::from_arg_matches(&matches));
    match read {
        Ok(ClusterLine { command }) => Ok(Parsed { root, wish: Some(Wish { cluster, command }), generated }),
        Err(error) => Err(Box::new(Refused { error, spoken: second.command })),
    }
}

/// The help that belongs to a cluster.
pub(crate) fn help_for(cluster: &str) -> String {
    let name = format!("ipfs-cluster-follow {cluster}");
    ClusterLine::command().bin_name(name).render_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Parsed, Box<Refused>> {
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
    fn other_spellings_of_the_original_are_understood() {
        let parsed = line("ipfs-cluster-follow -config /x c run -init=a.org").unwrap();
        assert_eq!(parsed.folder("c").path(), PathBuf::from("/x/c"));
        let Some(Command::Run(run)) = parsed.wish.unwrap().command else { panic!("it runs") };
        assert_eq!(run.init.as_deref(), Some("a.org"));
        assert_eq!(line("ipfs-cluster-follow c h").unwrap_err().error.kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn help_fits_every_terminal_and_shows_examples() {
        let mut faults = cluster_terminal::checks::faults_of_help(&Line::command());
        faults.extend(cluster_terminal::checks::faults_of_help(&ClusterLine::command()));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn the_list_of_the_surface_is_complete() {
        let surface = include_str!("../tests/surface.txt");
        let differences = cluster_terminal::checks::golden::differences(surface, &tree());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    #[test]
    fn both_steps_are_completed_and_have_pages() {
        tree().debug_assert();
        let mut text = Vec::new();
        Generated::Completions(Shell::Bash).write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("--config") && text.contains("--init"), "{text}");
        let place = tempfile::tempdir().unwrap();
        Generated::Man(Some(place.path().to_owned())).write(&mut io::sink()).unwrap();
        assert!(place.path().join("ipfs-cluster-follow-run.1").exists());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        use clap::error::ErrorKind;
        let kind = |text: &str| line(text).unwrap_err().error.kind();
        assert_eq!(kind("ipfs-cluster-follow --config /x c dance"), ErrorKind::InvalidSubcommand);
        assert_eq!(kind("ipfs-cluster-follow --config /x c init"), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("ipfs-cluster-follow --config /x c --help"), ErrorKind::DisplayHelp);
        for name in ["..", "a/b", "-c"] {
            assert!(line(&format!("ipfs-cluster-follow --config /x {name} info")).is_err(), "{name}");
        }
    }
}
