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

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Arguments;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let line = cluster_terminal::normalise(std::env::args_os(), &Arguments::command());
    let arguments = match Arguments::try_parse_from(&line.words) {
        Ok(arguments) => arguments,
        Err(error) => return cluster_terminal::refuse(&error, &line.command),
    };
    let output = Output::new(arguments.encoding);
    match run(arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, &output);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let starting = |error: std::io::Error| Failure::local("starting", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(starting)?;
    let outcome = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(starting)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(starting)?;
        tokio::select! {
            outcome = commands::run(arguments, output) => outcome,
            _ = interrupted.recv() => Err(Failure::Cancelled),
            _ = terminated.recv() => Err(Failure::Cancelled),
        }
    });
    // A file that is being read must not delay the end.
    runtime.shutdown_background();
    outcome
}

fn report(failure: &Failure, output: &Output) {
    match failure {
        // Scripts read it from there. If it cannot be written, the exit code still tells.
        Failure::Api(said) => drop(output.show_error(said)),
        Failure::Local { .. } | Failure::Deadline { .. } | Failure::Cancelled => eprintln!("{failure}"),
        Failure::OutputClosed => {}
    }
}
