//! `--paste`: the browser is elsewhere, and a person carries Amazon's response over.

use super::{FINISH_TIMEOUT, Login, LoginServer, ask, note, show};
use crate::{cli::wire::AdminRequest, lwa::percent_encode};
use anyhow::{Context as _, bail};
use http::header::SET_COOKIE;
use serde_json::Value;
use std::{
    io::{self, BufRead, IsTerminal, Read},
    ops::RangeInclusive,
};
use zeroize::Zeroizing;

/// An address with a code is far shorter.
const LINE_MAX_BYTES: u64 = 16 * 1024;
/// The length of a code. Source: Amazon's page on the authorization code grant (18 to 128).
const CODE_BYTES: RangeInclusive<usize> = 18..=512;

const NOTHING_PASTED: &str = "nothing was pasted: give the address or the code on standard input";

impl Login {
    pub(super) fn paste(&self, server: &LoginServer) -> anyhow::Result<Value> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("account", self.account.as_str());
        query.extend_pairs(self.region.map(|region| ("region", region.as_str())));
        query.extend_pairs(self.application.iter().map(|name| ("application", name)));
        let path = format!("/api/auth/amazon/login?{}", query.finish());
        let response = server.server.response(AdminRequest::get(&path))?;
        let cookie = response.headers.get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        let begun = response.success(&server.server)?;
        let (_, instructions) = server.instructions(&begun["auth_url"])?;
        let state = begun["state"].as_str().context("the server gave no state")?;
        note(format_args!(
            "To connect account {}, {instructions}\n\
             Then paste the address that Amazon sent the browser to (the page itself may well be an \
             error), or the code in it:",
            self.account
        ));
        let query = read_query(state)?;
        let path = Zeroizing::new(format!("/api/auth/amazon/callback?{}", *query));
        let request = AdminRequest::get(&path).cookie(&cookie.unwrap_or_default());
        let outcome = server.server.json(request.within(FINISH_TIMEOUT))?;
        if outcome["state"] != "question" {
            return Ok(outcome);
        }
        if self.yes {
            return server.confirm(&outcome, true);
        }
        note(show::question(&self.account, &outcome));
        if !io::stdin().is_terminal() {
            // The new grant is deleted once it is too old.
            bail!("account {} was left as it is; say --yes to replace it", self.account);
        }
        server.confirm(&outcome, ask(&format!("Replace account {}?", self.account)))
    }
}

/// Reads lines, from a person or a pipe, until one is an address or a code.
fn read_query(state: &str) -> anyhow::Result<Zeroizing<String>> {
    let mut refused = None;
    loop {
        let mut line = Zeroizing::new(String::with_capacity(LINE_MAX_BYTES as usize));
        let read = io::stdin().lock().take(LINE_MAX_BYTES).read_line(&mut line);
        if read.context("cannot read the address from standard input")? == 0 {
            bail!(refused.unwrap_or(NOTHING_PASTED));
        }
        let why = match query(line.trim(), state) {
            Ok(query) => return Ok(query),
            Err(why) => *refused.insert(why),
        };
        if io::stdin().is_terminal() {
            note(format_args!("{why}. Paste it again:"));
        }
    }
}

/// The arguments of the callback: those of a pasted address, or a code with the known state.
pub(in crate::cli) fn query(line: &str, state: &str) -> Result<Zeroizing<String>, &'static str> {
    if line.is_empty() {
        return Err(NOTHING_PASTED);
    }
    if line.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("this is neither an address nor a code: it has spaces or odd characters in it");
    }
    if let Some((_, query)) = line.split_once('?') {
        let query = query.split('#').next().unwrap_or_default();
        if !query.split('&').any(|pair| pair.strip_prefix("state=") == Some(state)) {
            return Err(
                "this address belongs to another login: paste the one of the address above",
            );
        }
        return Ok(Zeroizing::new(query.to_owned()));
    }
    if line.contains("://") || line.contains('&') {
        return Err("this address holds no code: copy all of it, to its end");
    }
    let code = line.strip_prefix("code=").unwrap_or(line);
    if !is_code(code) {
        return Err("this is no code: paste the whole address that Amazon sent the browser to");
    }
    let mut query = Zeroizing::new(format!("state={state}&code="));
    percent_encode(code, &mut query);
    Ok(query)
}

/// Says whether `text` can be one of Amazon's codes; a token, which begins with `Atz`, is none.
fn is_code(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~|".contains(&byte);
    CODE_BYTES.contains(&text.len()) && text.bytes().all(is_letter) && !text.starts_with("Atz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_an_address_or_a_code_and_nothing_else() {
        let read = |line: &str| query(line, "S").map(|query| query.to_string()).ok();
        let full = "http://localhost:8788/cb?code=AN1&scope=x&state=S";
        assert_eq!(read(full).as_deref(), Some("code=AN1&scope=x&state=S"));
        assert_eq!(
            read("https://amazon.com/?code=A&state=S#top").as_deref(),
            Some("code=A&state=S")
        );
        assert_eq!(
            read("ANabcdefghijklmnop|1").as_deref(),
            Some("state=S&code=ANabcdefghijklmnop%7C1")
        );
        assert_eq!(
            read("code=ANabcdefghijklmnopq").as_deref(),
            Some("state=S&code=ANabcdefghijklmnopq")
        );
        for line in
            ["hello", "garbage", "Atza|abcdefghijklmnopqrstuvw", "acme/initech/globex/umbrella"]
        {
            assert_eq!(read(line), None, "{line}");
        }
        for line in ["https://amazon.com/", "http://x/?code=A&state=T", "http://x/?code=A", "a b"] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
