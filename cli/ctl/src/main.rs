//! `ipfs-cluster-ctl`: the command line of a cluster, over the REST API of one of its peers.
//!
//! This file parses, runs and ends: every exit code is decided here and in [`failure`]. 0 when it worked, 1 for an
//! error on this side or a peer that cannot be reached, 2 for an error the API answered, 3 for a command that does not
//! exist, 62 when the time is over, 125 when it was cancelled.
#![expect(clippy::print_stderr, reason = "errors of a command line go to the standard error")]

mod args;
mod commands;
mod failure;
mod output;
mod spelling;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};

use crate::args::Arguments;
use crate::failure::Failure;
use crate::output::Output;

/// Exit code of a command that does not exist.
const UNKNOWN_COMMAND: u8 = 3;

fn main() -> ExitCode {
    let words = spelling::normalise(std::env::args_os(), &Arguments::command());
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, &words),
    };
    let output = Output::new(arguments.encoding);
    match run(arguments, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, output);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::local("starting", &error))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = commands::run(arguments, output) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure::Cancelled),
        }
    });
    // A file that is being read must not delay the end.
    runtime.shutdown_background();
    outcome
}

fn report(failure: &Failure, output: Output) {
    match failure {
        // Scripts read it from there. If it cannot be written, the exit code still tells.
        Failure::Api(said) => drop(output.show_error(said)),
        Failure::Local { .. } | Failure::Deadline { .. } | Failure::Cancelled => eprintln!("{failure}"),
        Failure::OutputClosed => {}
    }
}

/// Says what is wrong with a command line, or prints the help that was asked for.
fn refuse(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let kind = error.kind();
    if !error.use_stderr() {
        return printed(error.print());
    }
    let unknown = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
    let is_group = matches!(kind, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand);
    if is_group || (kind == ErrorKind::InvalidSubcommand && unknown == "h") {
        return printed(spelling::spoken_of(words, &Arguments::command()).print_help());
    }
    if kind == ErrorKind::InvalidSubcommand {
        eprintln!("No help topic for '{unknown}'");
        return ExitCode::from(UNKNOWN_COMMAND);
    }
    eprintln!("Incorrect Usage. {error}");
    ExitCode::FAILURE
}

fn printed(outcome: std::io::Result<()>) -> ExitCode {
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
