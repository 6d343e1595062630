//! `adsproxy env`: the lines that point a shell's programs at the running server.

use super::{Context, access::Access, note, print, server::reachable, status, wire::AdminRequest};
use crate::config::{Listen, ListenAddress, admin_text, load};
use anyhow::Context as _;
use serde_json::Value;
use std::path::Path;

/// Print variables that point SDKs at the running server: eval "$(adsproxy env acme)"
#[derive(Debug, clap::Args)]
pub(super) struct Env {
    #[command(flatten)]
    access: Access,
    /// Whose syntax to write [default: that of the shell which runs this]
    #[arg(long)]
    shell: Option<Shell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// sh, bash, zsh, dash
    Posix,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
}

impl Env {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let addresses = load::addresses(&context.options())?.listen;
        self.warn_unless_served(context, &addresses);
        let bearer = format!("Atza|{}", self.access.alias);
        let origin = origin(&addresses)?;
        let shell = self.shell.unwrap_or_else(|| Shell::detect(context));
        let variables = self.access.variables(&origin, bearer, &context.environment);
        let lines = variables.into_iter().map(|(name, value)| shell.line(name, &value));
        print(lines.collect::<String>())
    }

    /// On standard error, which `eval` does not read.
    fn warn_unless_served(&self, context: &Context, addresses: &Listen) {
        let alias = &self.access.alias;
        let server = status::server(context);
        let asked = server.and_then(|server| Ok(server.send(AdminRequest::get("/status"))?));
        let Ok(response) = asked else {
            let address = admin_text(&addresses.admin);
            return note(format_args!(
                "warning: no adsproxy responds at {address} yet; start it with `adsproxy serve`"
            ));
        };
        if response.status != 200 {
            // It asks for a key, and is no worse for programs.
            return;
        }
        let is_named = |account: &Value| account["account"] == alias.as_str();
        if !response.said["accounts"].as_array().is_some_and(|all| all.iter().any(is_named)) {
            note(format_args!("warning: the running server has no account {alias}"));
        }
    }
}

/// The first address that a program on this machine can use.
fn origin(addresses: &Listen) -> anyhow::Result<String> {
    let tcp = addresses.proxy.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) if address.port() != 0 => Some(reachable(*address)),
        _ => None,
    });
    let tcp = tcp.context("listen.proxy names no TCP port that a base URL could hold: add one")?;
    let scheme = if addresses.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{tcp}"))
}

impl Shell {
    /// Asks which program waits for this one, then what the user's shell is.
    fn detect(context: &Context) -> Self {
        let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
        let name = parent.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        let login = context.environment.get("SHELL").unwrap_or_default();
        name.as_deref().and_then(Self::named).or_else(|| Self::named(login)).unwrap_or(Self::Posix)
    }

    fn named(program: &str) -> Option<Self> {
        match Path::new(program.trim()).file_name()?.to_str()? {
            "fish" => Some(Self::Fish),
            "pwsh" | "powershell" => Some(Self::Powershell),
            "sh" | "bash" | "zsh" | "dash" | "ash" | "ksh" | "mksh" => Some(Self::Posix),
            _ => None,
        }
    }

    fn line(self, name: &str, value: &str) -> String {
        match self {
            Self::Posix => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
            Self::Fish => {
                let quoted = value.replace('\\', r"\\").replace('\'', r"\'");
                format!("set -gx {name} '{quoted}';\n")
            }
            Self::Powershell => format!("$Env:{name} = '{}'\n", value.replace('\'', "''")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenTls;

    #[test]
    fn values_are_quoted_for_each_shell() {
        let value = r"a'b\c $(x) `y`";
        assert_eq!(Shell::Posix.line("N", value), "export N='a'\\''b\\c $(x) `y`'\n");
        assert_eq!(Shell::Fish.line("N", value), "set -gx N 'a\\'b\\\\c $(x) `y`';\n");
        assert_eq!(Shell::Powershell.line("N", value), "$Env:N = 'a''b\\c $(x) `y`'\n");
    }

    #[test]
    fn shells_are_known_by_their_names() {
        assert_eq!(Shell::named("/usr/bin/fish"), Some(Shell::Fish));
        assert_eq!(Shell::named("pwsh\n"), Some(Shell::Powershell));
        assert_eq!(Shell::named("bash"), Some(Shell::Posix));
        assert_eq!(Shell::named("make"), None);
        assert_eq!(Shell::named(""), None);
    }

    #[test]
    fn the_base_url_is_that_of_a_tcp_port() {
        let addresses = |proxy: &[&str], tls: bool| {
            let proxy = proxy.iter().map(|text| match text.strip_prefix("unix:") {
                Some(path) => ListenAddress::Unix(path.into()),
                None => ListenAddress::Tcp(text.parse().expect("an address")),
            });
            let tls = tls.then(ListenTls::default);
            Listen { proxy: proxy.collect(), tls, ..Listen::default() }
        };
        let first = addresses(&["unix:/s", "0.0.0.0:87", "127.0.0.1:88"], false);
        assert_eq!(origin(&first).expect("a port"), "http://127.0.0.1:87");
        assert_eq!(origin(&addresses(&["[::1]:87"], true)).expect("a port"), "https://[::1]:87");
        assert!(origin(&addresses(&["unix:/s", "127.0.0.1:0"], false)).is_err());
    }
}
