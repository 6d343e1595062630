//! Reads a refresh token from a file or standard input, and not from where others can see it.

use crate::{cli::Context, config::secret_ref::SecretRef, secret::Secret};
use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    io::{self, BufRead, IsTerminal, Read, Stdin},
    path::Path,
};
use zeroize::Zeroizing;

/// Amazon's documented maximum is 2048.
const TOKEN_MAX_BYTES: usize = 8192;

/// What Amazon's refresh tokens begin with.
const TOKEN_PREFIX: &str = "Atzr|";

pub(super) fn read(file: Option<&Path>, context: &Context) -> anyhow::Result<Secret> {
    let token = match file {
        Some(path) => {
            let path = path.to_str().context("the path of the refresh token is not UTF-8")?;
            let found = SecretRef::File(path.to_owned()).resolve(&context.environment)?;
            if let Some(exposed) = found.exposed {
                eprintln!("warning: {exposed}");
            }
            found.secret
        }
        None => from_stdin().context("cannot read the refresh token from standard input")?,
    };
    let text = token.expose().trim();
    if text.is_empty() {
        bail!("the refresh token is empty; give it on standard input or by --refresh-token-file");
    }
    if text.len() > TOKEN_MAX_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "this is no refresh token: it must be one line of at most {TOKEN_MAX_BYTES} visible characters"
        );
    }
    if !text.starts_with(TOKEN_PREFIX) {
        eprintln!("note: Amazon's refresh tokens begin with {TOKEN_PREFIX}, this one does not");
    }
    Ok(Secret::from(text))
}

fn from_stdin() -> io::Result<Secret> {
    let stdin = io::stdin();
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_MAX_BYTES + 2));
    if stdin.is_terminal() {
        eprint!("Refresh token (not shown): ");
        let echo = EchoOff::new(&stdin)?;
        stdin.lock().read_line(&mut text)?;
        drop(echo);
        eprintln!();
    } else {
        stdin.lock().take(TOKEN_MAX_BYTES as u64 + 2).read_to_string(&mut text)?;
    }
    Ok(Secret::from(text.as_str()))
}

/// A terminal that does not show what is typed, until dropped.
struct EchoOff<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> EchoOff<'a> {
    fn new(terminal: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        // The terminal went away with its window, then.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
