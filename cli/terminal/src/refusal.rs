//! What a command line gets that cannot be carried out: help, or what is wrong with it.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ErrorKind};

/// Exit code of a command that does not exist.
const UNKNOWN_COMMAND: u8 = 3;

/// Says what is wrong with a command line and with which code to exit, or prints the help that was asked for. `spoken` is the
/// command that the line speaks of.
pub fn refuse(error: &clap::Error, spoken: &Command) -> ExitCode {
    let (said, code) = judge(error, spoken);
    let written = match said {
        Said::ByClap => error.print(),
        Said::Output(text) => io::stdout().lock().write_all(text.as_bytes()),
        Said::Error(text) => io::stderr().lock().write_all(text.as_bytes()),
    };
    if written.is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE }
}

/// What is printed where.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Help or version, in colours if there are any.
    ByClap,
    /// On the standard output.
    Output(String),
    /// On the standard error.
    Error(String),
}

fn judge(error: &clap::Error, spoken: &Command) -> (Said, u8) {
    let help = || spoken.clone().render_help().to_string();
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        return (Said::Output(help()), 0);
    }
    if !error.use_stderr() {
        return (Said::ByClap, 0);
    }
    if kind == ErrorKind::InvalidSubcommand {
        let word = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
        return (Said::Error(format!("No help topic for '{word}'\n")), UNKNOWN_COMMAND);
    }
    (Said::Error(format!("Incorrect Usage. {}\n\n{}", complaint(&error.render().to_string()), help())), 1)
}

/// What clap complains about, without the short usage behind it.
fn complaint(text: &str) -> &str {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let end = ["\n\nUsage:", "\n\nFor more information"].into_iter().filter_map(|mark| text.find(mark)).min();
    text.get(..end.unwrap_or(text.len())).unwrap_or(text).trim_end()
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn said(words: &[&str]) -> (Said, u8) {
        let group = Command::new("pin").arg_required_else_help(true).subcommand_required(true);
        let tree = Command::new("ctl").subcommand(group.subcommand(Command::new("add").arg(Arg::new("x").long("x"))));
        let line = crate::normalise(words.iter().map(Into::into), &tree);
        let error = tree.try_get_matches_from(line.words).unwrap_err();
        judge(&error, &line.command)
    }

    #[test]
    fn a_group_without_a_command_prints_its_help() {
        let (Said::Output(help), 0) = said(&["ctl", "pin"]) else { panic!("help was asked for") };
        assert!(help.contains("Usage: ctl pin"), "{help}");
        assert_eq!(said(&["ctl", "pin", "--help"]), (Said::ByClap, 0));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        assert_eq!(said(&["ctl", "pin", "dance"]), (Said::Error("No help topic for 'dance'\n".to_owned()), 3));
        let (Said::Error(text), 1) = said(&["ctl", "pin", "add", "--y"]) else { panic!("there is no such flag") };
        assert!(text.starts_with("Incorrect Usage. unexpected argument '--y' found"), "{text}");
        assert!(text.contains("\n\nUsage: ctl pin add") && !text.contains("For more information"), "{text}");
        assert_eq!(text.matches("Usage:").count(), 1, "{text}");
    }
}
