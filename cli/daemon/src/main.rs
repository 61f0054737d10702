//! `ipfs-cluster-service`: the daemon beside an IPFS node, and what prepares its folder.
//!
//! This file maps outcomes to exit codes and nothing else: 0 when it worked, 1 for an error, 3 for a subcommand that
//! does not exist.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to people")]

mod args;
mod commands;
mod prompt;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Arguments, Command};

/// RocksDB is built to use the same one; two allocators in one process would keep memory from each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a subcommand that does not exist.
const UNKNOWN_SUBCOMMAND: u8 = 3;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(args::normalise(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let Some(command) = &arguments.command else {
        println!("{}", Arguments::command().render_help());
        return ExitCode::FAILURE;
    };
    match run(command, &arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(init) => commands::init::run(init, arguments)?,
        Command::Daemon(daemon) => commands::daemon::run(daemon, arguments)?,
        Command::Demo(demo) => return commands::demo::run(demo),
        Command::Cat(cat) => commands::cat::run(cat, arguments)?,
        Command::State(state) => commands::state::run(&state.command, arguments)?,
        Command::Version => println!("{}", cluster_types::VERSION),
        Command::Unknown(words) => {
            let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            eprintln!("No help topic for '{word}'\n\n{}", Arguments::command().render_help());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is wrong with a command line, or prints the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        let word = error.get(clap::error::ContextKind::InvalidSubcommand);
        eprintln!("No help topic for '{}'", word.map(ToString::to_string).unwrap_or_default());
        return ExitCode::from(UNKNOWN_SUBCOMMAND);
    }
    eprintln!("Incorrect Usage. {error}");
    ExitCode::FAILURE
}
