//! Parses the arguments, runs, prints what went wrong, and exits with its code.

use adsproxy::cli::{self, Cli};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adsproxy: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
