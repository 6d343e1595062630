//! `adsproxy man`: the manual, made of the same words as the help.

use super::{Cli, print};
use anyhow::Context as _;
use clap::{Command, CommandFactory};
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
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        if let Some(directory) = &self.dir {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            return write_all(&program, "adsproxy", directory);
        }
        let (mut command, mut name) = (&program, "adsproxy".to_owned());
        for word in &self.command {
            let found = command.get_subcommands().find(|known| known.get_name() == word);
            command = found.with_context(|| {
                format!("there is no command {name} {word}: see `{name} --help`")
            })?;
            name = format!("{name} {word}");
        }
        print(page(command, &name)?)
    }
}

/// Writes the page of `command` and of all below it; what is hidden has none.
fn write_all(command: &Command, name: &str, directory: &std::path::Path) -> anyhow::Result<()> {
    let path = directory.join(format!("{}.1", name.replace(' ', "-")));
    fs::write(&path, page(command, name)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_all(below, &format!("{name} {}", below.get_name()), directory)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone())
        .title(name.replace(' ', "-").to_uppercase())
        .source(concat!("adsproxy ", env!("CARGO_PKG_VERSION")))
        .manual("adsproxy manual");
    man.render(&mut page)?;
    Ok(page)
}
