//! Reads a refresh token from a file or standard input, and not from where others can see it.

use crate::{
    cli::{Context, note},
    config::secret_ref::SecretRef,
    secret::{RefreshToken, Secret},
};
use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::{
    io::{self, BufRead, IsTerminal, Read},
    path::Path,
};
use zeroize::Zeroizing;

/// Longer than any token, so that a longer input is refused and not cut.
const INPUT_MAX_BYTES: usize = 16 * 1024;

/// A shorter text that does not even begin as a token does is a slip.
const UNUSUAL_MIN_BYTES: usize = 16;

/// Reads the token and refuses what can be none.
pub(super) fn read(file: Option<&Path>, context: &Context) -> anyhow::Result<Secret> {
    let given = match file {
        Some(path) => {
            let path = path.to_str().context("the path of the refresh token is not UTF-8")?;
            let found = SecretRef::File(path.to_owned()).resolve(&context.environment)?;
            if let Some(exposed) = found.exposed {
                note(format_args!("warning: {exposed}"));
            }
            found.secret
        }
        None => from_stdin().context("cannot read the refresh token from standard input")?,
    };
    let token = RefreshToken::parse(&given)
        .context("give the refresh token on standard input or by --refresh-token-file")?;
    let text = token.secret.expose();
    if text.starts_with(['{', '[']) {
        bail!("this is JSON and no refresh token: `adsproxy import` reads such files");
    }
    if !token.is_usual && text.len() < UNUSUAL_MIN_BYTES {
        bail!("this is no refresh token: {}, and it is too short", RefreshToken::UNUSUAL);
    }
    if !token.is_usual {
        note(format_args!("warning: the token {}", RefreshToken::UNUSUAL));
    }
    Ok(token.secret)
}

fn from_stdin() -> io::Result<Secret> {
    let stdin = io::stdin();
    let mut text = Zeroizing::new(String::with_capacity(INPUT_MAX_BYTES));
    if stdin.is_terminal() {
        eprint!("Refresh token (not shown): ");
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
        let read = stdin.lock().read_line(&mut text);
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
        read?;
        note("");
    } else {
        stdin.lock().take(INPUT_MAX_BYTES as u64).read_to_string(&mut text)?;
    }
    Ok(Secret::from(text.as_str()))
}
