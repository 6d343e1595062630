//! `adsproxy check-config`: every mistake in the configuration, or that there is none.

use super::{Context, note, print};

/// Name every mistake in the configuration
#[derive(Debug, clap::Args)]
pub(super) struct CheckConfig {
    /// Print every value in effect as TOML, secrets masked
    #[arg(long)]
    print_effective: bool,
}

impl CheckConfig {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let loaded = context.load()?;
        let source = loaded.config.source.as_ref();
        let source = source.map_or("the environment".to_owned(), |path| path.display().to_string());
        // Not on standard output, which may be read by a program.
        for warning in &loaded.warnings {
            note(format_args!("warning: {warning}\n"));
        }
        if self.print_effective {
            return print(format!(
                "# {source}, with variables, flags and defaults\n{}",
                loaded.effective
            ));
        }
        let config = &loaded.config;
        print(format!(
            "{source}: no mistakes found ({} and {})\n",
            count(config.applications.len(), "application"),
            count(config.accounts.len(), "account"),
        ))
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
