//! How flags may be written: the forms of the original that clap does not know.
//!
//! Long names may stand after one dash (`-rmin 2`), and switches may carry a value (`--local=false`).
//!
//! **Invariant:** only names that the command tree knows are rewritten, and nothing that follows `--`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{ArgAction, Command};

/// Long names of flags, and those among them that are switches.
#[derive(Debug, Default)]
struct Names {
    known: BTreeSet<String>,
    switches: BTreeMap<String, bool>,
}

impl Names {
    fn collect(&mut self, command: &Command) {
        for argument in command.get_arguments() {
            let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
            let aliases = argument.get_all_aliases().unwrap_or_default();
            for name in argument.get_long().into_iter().chain(aliases) {
                self.known.insert(name.to_owned());
                // A name that takes a value anywhere is never treated as a switch.
                *self.switches.entry(name.to_owned()).or_insert(true) &= is_switch;
            }
        }
        for name in ["help", "version"] {
            self.known.insert(name.to_owned());
        }
        for command in command.get_subcommands() {
            self.collect(command);
        }
    }

    /// The argument as clap takes it; `None` for a switch that is switched off.
    fn respell(&self, argument: &str) -> Option<String> {
        let Some(text) = argument.strip_prefix('-') else { return Some(argument.to_owned()) };
        let text = text.strip_prefix('-').unwrap_or(text);
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.len() < 2 || !self.known.contains(name) {
            return Some(argument.to_owned());
        }
        match value {
            Some("true" | "1" | "t") if self.switches.get(name) == Some(&true) => Some(format!("--{name}")),
            Some("false" | "0" | "f") if self.switches.get(name) == Some(&true) => None,
            Some(_) | None => Some(format!("--{text}")),
        }
    }
}

/// Rewrites what the original takes to what clap takes.
pub(crate) fn normalise(arguments: impl Iterator<Item = OsString>, tree: &Command) -> Vec<OsString> {
    let mut names = Names::default();
    names.collect(tree);
    let mut are_flags = true;
    arguments
        .filter_map(|argument| {
            let Some(text) = argument.to_str() else { return Some(argument) };
            are_flags &= text != "--";
            if are_flags { names.respell(text).map(OsString::from) } else { Some(argument) }
        })
        .collect()
}

/// The command that a command line speaks of, as far as it can be told: for its help.
pub(crate) fn spoken_of(arguments: &[OsString], tree: &Command) -> Command {
    let mut command = tree.clone();
    // Hands the settings of the tree down to its commands.
    command.build();
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        if let Some(next) = command.find_subcommand(argument) {
            command = next.clone();
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Arguments;

    fn spelt(line: &str) -> String {
        let words = normalise(line.split_whitespace().map(OsString::from), &Arguments::command());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn long_names_after_one_dash_are_understood() {
        assert_eq!(
            spelt("ctl -enc json pin add -rmin 2 -ns -wt=5s x"),
            "ctl --enc json pin add --rmin 2 --ns --wt=5s x"
        );
        assert_eq!(spelt("ctl add -r -Q -s size-1 -unknown -- -rmin"), "ctl add -r -Q -s size-1 -unknown -- -rmin");
        assert_eq!(spelt("ctl pin add -rmin -1 -help"), "ctl pin add --rmin -1 --help");
    }

    #[test]
    fn switches_may_carry_a_value() {
        assert_eq!(spelt("ctl status --local=true"), "ctl status --local");
        assert_eq!(spelt("ctl status -local=false"), "ctl status");
        assert_eq!(spelt("ctl pin add --name=true"), "ctl pin add --name=true");
    }

    #[test]
    fn the_command_of_a_line_is_found_between_its_flags() {
        let words: Vec<OsString> = ["ctl", "--enc", "json", "peers", "h"].map(OsString::from).to_vec();
        assert_eq!(spoken_of(&words, &Arguments::command()).get_name(), "peers");
    }
}
