//! `ipfs-cluster-service`: the daemon beside an IPFS node, and what prepares its folder.
//!
//! This file maps outcomes to exit codes and nothing else: 0 when it worked, 1 for an error, 3 for a subcommand that
//! does not exist.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to people")]

mod args;
mod commands;
mod prompt;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::args::{Arguments, Command};

/// RocksDB is built to use the same one; two allocators in one process would keep memory from each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let line = cluster_terminal::normalise(std::env::args_os(), &Arguments::command());
    let arguments = match Arguments::try_parse_from(&line.words) {
        Ok(arguments) => arguments,
        Err(error) => return cluster_terminal::refuse(&error, &line.command),
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
        Command::HashPassword => commands::hash_password::run()?,
        Command::Version => println!("{}", cluster_types::VERSION),
        Command::Completions { shell } => {
            let tree = Arguments::command();
            cluster_terminal::completions(*shell, &tree, &mut io::stdout().lock()).context("writing")?;
        }
        Command::Man { folder } => {
            let tree = Arguments::command();
            cluster_terminal::man_pages(&tree, folder.as_deref(), &mut io::stdout().lock()).context("writing")?;
        }
        Command::Unknown(words) => {
            let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            eprintln!("No help topic for '{word}'\n\n{}", Arguments::command().render_help());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
