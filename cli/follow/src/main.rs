//! `ipfs-cluster-follow`: read-only peers of clusters that others run, one folder for each.
//!
//! This file maps outcomes to exit codes and nothing else: 0 when it worked, 1 for an error, 3 for a subcommand that
//! does not exist.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to people")]

mod args;
mod commands;

use std::process::ExitCode;

use crate::args::{Command, Parsed, Wish};

/// RocksDB is built to use the same one; two allocators in one process would keep memory from each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a subcommand that does not exist.
const UNKNOWN_SUBCOMMAND: u8 = 3;

fn main() -> ExitCode {
    let parsed = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    match run(&parsed) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(parsed: &Parsed) -> anyhow::Result<ExitCode> {
    let Some(Wish { cluster, command }) = &parsed.wish else {
        commands::clusters(&parsed.root)?;
        return Ok(ExitCode::SUCCESS);
    };
    let folder = parsed.folder(cluster);
    match command {
        Some(Command::Init(init)) => return commands::init::run(init, cluster, &folder),
        Some(Command::Run(run)) => return commands::run::run(run, cluster, &folder),
        Some(Command::Info) | None if !commands::is_initialised(&folder) => {}
        Some(Command::List) if !commands::is_initialised(&folder) => {}
        Some(Command::List) => {
            commands::list::run(&folder)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Info) => {
            commands::info::run(cluster, &folder)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {
            commands::info::run(cluster, &folder)?;
            println!("\n{}", args::help_for(cluster));
            return Ok(ExitCode::SUCCESS);
        }
    }
    commands::say_not_initialised(cluster);
    Ok(ExitCode::FAILURE)
}

/// Says what is wrong with a command line, or prints the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ErrorKind};
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        let word = error.get(ContextKind::InvalidSubcommand);
        eprintln!("No help topic for '{}'", word.map(ToString::to_string).unwrap_or_default());
        return ExitCode::from(UNKNOWN_SUBCOMMAND);
    }
    eprintln!("Incorrect Usage. {error}");
    ExitCode::FAILURE
}
