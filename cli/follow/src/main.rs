//! `ipfs-cluster-follow`: read-only peers of clusters that others run, one folder for each.
//!
//! This file maps outcomes to exit codes and nothing else: 0 when it worked, 1 for an error, 3 for a subcommand that
//! does not exist.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to people")]

mod args;
mod commands;

use std::io;
use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Command, Parsed, Wish};

/// RocksDB is built to use the same one; two allocators in one process would keep memory from each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let parsed = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(refused) => return cluster_terminal::refuse(&refused.error, &refused.spoken),
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
    if let Some(generated) = &parsed.generated {
        generated.write(&mut io::stdout().lock()).context("writing")?;
        return Ok(ExitCode::SUCCESS);
    }
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
