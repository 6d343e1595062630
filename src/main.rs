//! Serves; the command line is on its way.
use adsproxy::config::{environment::Environment, load};
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let path = args.iter().position(|a| a == "--config").map(|i| args[i + 1].clone().into());
    let loaded = load::load(&load::Options {
        path,
        environment: Environment::of_process(),
        overrides: Vec::new(),
    })
    .map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut config = loaded.config;
    config.log.format = Some(adsproxy::config::LogFormat::Json);
    adsproxy::app::serve(config)
}
