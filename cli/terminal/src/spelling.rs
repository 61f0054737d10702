//! How a command line may be spelt: the forms of the original that clap does not know.
//!
//! Long names may stand after one dash (`-rmin 2`), one letter after two (`--l x`), switches may carry a value
//! (`--local=false`, `-w=true`), and `h` is short for `help`.
//!
//! **Invariant:** only names are rewritten that the command knows in whose place they stand; values are never touched, nor
//! what follows `--`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// A command line as clap takes it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its words, the name of the program first.
    pub words: Vec<OsString>,
    /// The command that it speaks of, as far as that can be told: for its help.
    pub command: Command,
}

/// Rewrites what the original takes to what clap takes.
pub fn normalise(words: impl Iterator<Item = OsString>, tree: &Command) -> Line {
    let mut tree = tree.clone();
    // Hands settings down, and adds the flags and commands that help.
    tree.build();
    let mut reader = Reader { command: &tree, spoken: None, place: Place::Word };
    let words = words.enumerate().filter_map(|(place, word)| {
        match word.to_str() {
            // The program, and what cannot be a name.
            Some(_) if place == 0 => Some(word),
            Some(text) => reader.read(text).map(OsString::from),
            None => {
                reader.place = if reader.place == Place::Rest { Place::Rest } else { Place::Word };
                Some(word)
            }
        }
    });
    let words = words.collect();
    let command = reader.spoken.unwrap_or(reader.command).clone();
    Line { words, command }
}

/// What the next word may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A flag, a command or an argument.
    Word,
    /// The value of the flag before it.
    Value,
    /// An argument: `--` came before.
    Rest,
}

/// Reads word by word.
struct Reader<'a> {
    command: &'a Command,
    /// The command that was given a flag it does not know, if one was: whoever reads its help finds those it has.
    spoken: Option<&'a Command>,
    place: Place,
}

impl<'a> Reader<'a> {
    /// The word as clap takes it; none for a switch that is switched off.
    fn read(&mut self, word: &str) -> Option<String> {
        let place = self.place;
        if place == Place::Value {
            self.place = Place::Word;
        }
        if place != Place::Word {
            return Some(word.to_owned());
        }
        if word == "--" {
            self.place = Place::Rest;
        } else if let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) {
            return self.read_flag(word, name.strip_prefix('-').unwrap_or(name));
        } else if let Some(command) = self.command.find_subcommand(word) {
            self.command = command;
        } else if word == "h" && self.command.has_subcommands() {
            return Some("help".to_owned());
        }
        Some(word.to_owned())
    }

    fn read_flag(&mut self, word: &str, text: &str) -> Option<String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some(argument) = self.find(name) else {
            // Several short flags in one word: the last may take the next word as its value.
            let last = text.chars().next_back().and_then(|letter| self.find(letter.encode_utf8(&mut [0; 4])));
            if last.is_none() {
                self.spoken.get_or_insert(self.command);
            }
            if value.is_none() && !word.starts_with("--") && last.is_some_and(takes_value) {
                self.place = Place::Value;
            }
            return Some(word.to_owned());
        };
        let dashes = if name.chars().count() == 1 { "-" } else { "--" };
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            return match value.map(truth) {
                None | Some(Some(true)) => Some(format!("{dashes}{name}")),
                Some(Some(false)) => None,
                Some(None) => Some(format!("{dashes}{text}")),
            };
        }
        if takes_value(argument) && value.is_none() {
            self.place = Place::Value;
        }
        Some(format!("{dashes}{text}"))
    }

    /// The flag of the present command that has this name.
    fn find(&self, name: &str) -> Option<&'a Arg> {
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        self.command.get_arguments().find(|argument| match letter {
            Some(letter) => {
                argument.get_short() == Some(letter)
                    || argument.get_all_short_aliases().is_some_and(|aliases| aliases.contains(&letter))
            }
            None => {
                argument.get_long() == Some(name)
                    || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
            }
        })
    }
}

/// Whether the word behind the flag belongs to it.
fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values() && !argument.is_require_equals_set()
}

/// What the original takes for true and false.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Command {
        let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let add = Command::new("add")
            .arg(Arg::new("path"))
            .arg(Arg::new("least").long("replication-min").alias("rmin").allow_negative_numbers(true))
            .arg(Arg::new("cut").short('s').long("chunker"))
            .arg(switch("recursive").short('r'))
            .arg(switch("no-status").alias("ns"));
        Command::new("ctl")
            .version("1")
            .arg(switch("https").short('s'))
            .arg(Arg::new("host").short('l').long("host"))
            .arg(Arg::new("watch").long("watch").num_args(0..=1).require_equals(true))
            .subcommand(Command::new("pin").subcommand(add))
    }

    fn read(line: &str) -> (String, String) {
        let line = normalise(line.split_whitespace().map(OsString::from), &tree());
        let words: Vec<&str> = line.words.iter().map(|word| word.to_str().unwrap()).collect();
        (words.join(" "), line.command.get_name().to_owned())
    }

    #[test]
    fn names_are_respelt_where_they_are_known_and_values_never() {
        for (written, spelt) in [
            ("ctl -host x pin add -rmin 2 -ns y", "ctl --host x pin add --rmin 2 --ns y"),
            ("ctl pin add -rmin=-1 -help", "ctl pin add --rmin=-1 --help"),
            ("ctl pin add -rmin -1", "ctl pin add --rmin -1"),
            ("ctl pin add -s -ns -rs -ns", "ctl pin add -s -ns -rs -ns"),
            ("ctl --l x", "ctl -l x"),
            ("ctl -host pin h", "ctl --host pin help"),
            ("ctl h pin", "ctl help pin"),
            ("ctl pin add h", "ctl pin add h"),
            ("ctl pin add -- -ns h", "ctl pin add -- -ns h"),
            ("ctl -unknown -ns", "ctl -unknown -ns"),
            ("ctl -watch pin add", "ctl --watch pin add"),
            ("ctl - x", "ctl - x"),
        ] {
            assert_eq!(read(written).0, spelt, "{written}");
        }
    }

    #[test]
    fn switches_may_carry_a_value() {
        for (written, spelt) in [
            ("ctl -s=true pin", "ctl -s pin"),
            ("ctl --https=False pin", "ctl pin"),
            ("ctl pin add -r=T -no-status=0 -s=t", "ctl pin add -r -s=t"),
            ("ctl --https=maybe", "ctl --https=maybe"),
        ] {
            assert_eq!(read(written).0, spelt, "{written}");
        }
    }

    #[test]
    fn the_command_of_a_line_is_found_between_its_flags() {
        assert_eq!(read("ctl -s --host add pin add --rmin pin").1, "add");
        assert_eq!(read("ctl --host pin").1, "ctl");
        assert_eq!(read("ctl pin dance").1, "pin");
        assert_eq!(read("ctl --quick pin add").1, "ctl");
    }
}
