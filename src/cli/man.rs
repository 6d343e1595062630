//! `adsproxy man`: the manual, made of the same words as the help.

use super::{Cli, print};
use anyhow::Context as _;
use clap::CommandFactory;
use std::{fs, path::PathBuf};

/// Print the manual page, or write one for every command: adsproxy man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The page of this command, such as `key init` [default: that of adsproxy]
    command: Vec<String>,
    /// Write the pages of all commands into this directory instead
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        if let Some(directory) = &self.dir {
            let written = fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
            return written.with_context(|| format!("cannot write into {}", directory.display()));
        }
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let (mut command, mut name) = (&program, "adsproxy".to_owned());
        for word in &self.command {
            let found = command.get_subcommands().find(|known| known.get_name() == word);
            command = found.with_context(|| {
                format!("there is no command {name} {word}: see `{name} --help`")
            })?;
            name = format!("{name} {word}");
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        print(page)
    }
}
