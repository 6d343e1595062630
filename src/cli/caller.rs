//! `adsproxy caller`: the keys of those who call.

mod add;

use super::Context;

#[derive(Debug, clap::Subcommand)]
pub(super) enum CallerVerb {
    /// Make a key for a new caller; prints it once, and the lines for the configuration
    Add(add::AddCaller),
    /// Make another key for a caller; the old ones go on for a while
    Rotate(add::RotateCaller),
}

impl CallerVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(verb) => verb.run(context),
            Self::Rotate(verb) => verb.run(context),
        }
    }
}
