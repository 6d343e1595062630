//! Receivers of events, and the queue of events that wait for delivery.

use super::{Check, is_loopback, parse_url};
use crate::{
    config::{
        Hook, HookTarget, Outbox, Webhook,
        file::{self, HookUrl},
        secret_ref::Secrets,
    },
    event::Kind,
    id::AccountId,
    secret::Secret,
    trusted_path,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{Access, access};
use std::{collections::HashSet, time::Duration};

/// What the specification asks of a key, bytes.
const KEY_MIN_BYTES: usize = 24;

/// The longest that one delivery may hold its slot.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

impl Check<'_> {
    pub(super) fn hooks(&mut self, file: &[file::Hook]) -> Vec<Hook> {
        let mut names = HashSet::new();
        let mut hooks = Vec::new();
        for (index, hook) in file.iter().enumerate() {
            let index = index.to_string();
            if hook.name.as_ref().is_some_and(|name| !names.insert(name)) {
                self.fail(&["hooks", &index, "name"], "is the name of an earlier hook too");
            }
            hooks.extend(self.hook(&index, hook));
        }
        hooks
    }

    fn hook(&mut self, index: &str, file: &file::Hook) -> Option<Hook> {
        let key = |name| ["hooks", index, name];
        match &file.name {
            None => self.lacks(&key("name"), "is missing: the log calls the hook by it", None),
            Some(name) if !AccountId::is_alias(name) => {
                self.fail(&key("name"), "must be 1 to 64 letters, digits, '.', '_' or '-'");
            }
            Some(_) => {}
        }
        let timeout = self.timeout(&key("timeout_secs"), file.timeout_secs);
        if timeout > TIMEOUT_MAX {
            let message = format!("must be at most {} seconds", TIMEOUT_MAX.as_secs());
            self.fail(&key("timeout_secs"), message);
        }
        let events = self.events(index, &file.events);
        let target = self.target(index, file);
        Some(Hook { name: file.name.clone()?, target: target?, events, timeout })
    }

    fn events(&mut self, index: &str, names: &file::List) -> Vec<Kind> {
        if names.0.is_empty() {
            let message = "is empty: leave it out, or remove the hook";
            self.lacks(&["hooks", index, "events"], message, None);
        }
        let mut events = Vec::new();
        for (place, name) in names.0.iter().enumerate() {
            let key = ["hooks", index, "events", &place.to_string()];
            match Kind::ALL.into_iter().find(|kind| kind.as_str() == name) {
                Some(kind) if events.contains(&kind) => self.fail(&key, "is listed twice"),
                Some(kind) => events.push(kind),
                None => {
                    let known = Kind::ALL.map(Kind::as_str).join(", ");
                    self.fail_with(&key, "is no event", Some(format!("known: {known}")));
                }
            }
        }
        events
    }

    fn target(&mut self, index: &str, file: &file::Hook) -> Option<HookTarget> {
        let key = |name| ["hooks", index, name];
        match (&file.url, &file.command) {
            (Some(_), Some(_)) => {
                self.fail(&key("command"), "a hook has a url or a command, not both");
                None
            }
            (None, None) => {
                self.lacks(&key("url"), "is missing: a hook has a url or a command", None);
                None
            }
            (Some(url), None) => self.webhook(index, url, file).map(HookTarget::Webhook),
            (None, Some(command)) => {
                if file.secret.is_some() {
                    self.fail(&key("secret"), "is for a url; a command gets no signature");
                }
                if file.unsafe_allow_private_addresses {
                    self.fail(&key("unsafe_allow_private_addresses"), "is for a url");
                }
                self.command(index, command).map(HookTarget::Command)
            }
        }
    }

    fn webhook(&mut self, index: &str, url: &HookUrl, file: &file::Hook) -> Option<Webhook> {
        let key = |name| ["hooks", index, name];
        let allowed = file.unsafe_allow_private_addresses;
        match parse_url(&url.0) {
            Err(message) => self.fail(&key("url"), message),
            Ok(uri) if uri.host().is_some_and(is_loopback) && !allowed => {
                let help = "if that is intended, add unsafe_allow_private_addresses = true";
                self.fail_with(&key("url"), "is on this machine", Some(help.to_owned()));
            }
            Ok(_) => {}
        }
        let secrets = match &file.secret {
            Some(secrets) => self.hook_secrets(&key("secret"), secrets),
            None => {
                let help = "it signs what is sent, so that the receiver knows us. Make one with\n\
                            echo \"whsec_$(openssl rand -base64 32)\"";
                self.lacks(&key("secret"), "is missing", Some(help.to_owned()));
                return None;
            }
        };
        Some(Webhook {
            url: Secret::new(url.0.clone()),
            secrets,
            unsafe_allow_private_addresses: allowed,
        })
    }

    fn hook_secrets(&mut self, key: &[&str], secrets: &Secrets) -> Vec<Secret> {
        let found = self.secrets(key, secrets);
        for secret in &found {
            let length = match secret.expose().strip_prefix("whsec_") {
                Some(encoded) => STANDARD.decode(encoded).map(|bytes| bytes.len()).ok(),
                None => Some(secret.expose().len()),
            };
            match length {
                None => self.fail(key, "begins with whsec_, but no base64 follows"),
                Some(length) if length < KEY_MIN_BYTES => {
                    let message = format!("is too short: {KEY_MIN_BYTES} bytes at least");
                    self.fail(key, message);
                }
                Some(_) => {}
            }
        }
        found
    }

    fn command(&mut self, index: &str, command: &file::List) -> Option<Vec<String>> {
        let key = ["hooks", index, "command"];
        let Some(program) = command.0.first() else {
            self.lacks(&key, "is empty", None);
            return None;
        };
        let path = self.path(&key, program);
        let shown = path.display();
        if path.is_relative() {
            self.fail(&key, format_args!("{shown} must begin with /: no search path is used"));
        } else {
            match std::fs::metadata(&path) {
                Err(error) => self.fail(&key, format_args!("cannot find {shown}: {error}")),
                Ok(file) if !file.is_file() => {
                    self.fail(&key, format_args!("{shown} is not a file"));
                }
                Ok(_) if access(&path, Access::EXEC_OK).is_err() => {
                    self.fail(&key, format_args!("this user may not run {shown}"));
                }
                Ok(_) => {
                    if let Err(untrusted) = trusted_path::verify(&path) {
                        self.fail(&key, untrusted);
                    }
                }
            }
        }
        let mut line = command.0.clone();
        line[0] = path.into_os_string().into_string().ok()?;
        Some(line)
    }

    pub(super) fn outbox(&mut self, outbox: &Outbox) {
        if outbox.retry_max < outbox.retry_min {
            self.fail(&["outbox", "retry_max_secs"], "is less than outbox.retry_min_secs");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{
        HookTarget,
        load::{Environment, LoadError, Loaded, parse},
    };

    /// Reads a configuration with these hooks.
    fn read(hooks: &str) -> Result<Loaded, LoadError> {
        let variables = [
            ("ID", "x"),
            ("RAW", "CANARY-raw-secret-of-this-hook"),
            ("SHORT", "CANARY-short"),
            ("BAD", "whsec_CANARY!"),
            ("GOOD", "whsec_aG9va3MtYXJlLXRlc3RlZC13aXRoLXRoaXMta2V5"),
        ];
        let environment: Environment =
            variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let text = format!(
            "store.kind = \"memory\"\n[lwa]\nclient_id = \"x\"\nclient_secret = {{ env = \"ID\" }}\n{hooks}"
        );
        parse(Some("p.toml".into()), &text, &environment, &[])
    }

    #[test]
    fn good_hooks_are_taken() {
        let loaded = read(
            r#"
[[hooks]]
name = "ops"
url = "https://ops.example.com/CANARY-path"
secret = [{ env = "GOOD" }, { env = "RAW" }]
[[hooks]]
name = "page"
command = ["/bin/sh", "-c", "true"]
events = ["token.refreshed"]
"#,
        )
        .expect("no mistakes");
        let [ops, page] = &loaded.config.hooks[..] else { panic!("two hooks") };
        assert!(matches!(&ops.target, HookTarget::Webhook(hook) if hook.secrets.len() == 2));
        assert!(matches!(&page.target, HookTarget::Command(line) if line.len() == 3));
        assert_eq!((ops.events.len(), page.events.len()), (6, 1));
        let shown = format!("{}{:?}", loaded.effective(), loaded.config);
        assert!(shown.contains("ops.example.com") && !shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_secret_with_it() {
        let error = read(
            r#"
[[hooks]]
name = "a b"
url = "http://ops.example.com/"
secret = { env = "SHORT" }
events = ["token.refreshed", "token.refreshed", "token.stolen"]
[[hooks]]
name = "two"
url = "https://localhost/"
secret = { env = "BAD" }
timeout_secs = 0
[[hooks]]
name = "two"
url = "https://me:CANARY@example.com/"
command = ["/bin/sh"]
[[hooks]]
command = ["sh"]
secret = { env = "GOOD" }
events = []
[[hooks]]
name = "five"
command = ["/nonexistent"]
[[hooks]]
name = "six"
command = ["/etc/passwd"]
[[hooks]]
name = "seven"
url = "https://ops.example.com/"
[[hooks]]
name = "eight"
[outbox]
retry_min_secs = 5
retry_max_secs = 1
messages_max = 0
"#,
        )
        .expect_err("mistakes");
        let text = error.to_string();
        for part in [
            "hooks.0.name: must be 1 to 64",
            "hooks.0.url: must begin with https://",
            "hooks.0.secret: is too short",
            "hooks.0.events.1: is listed twice",
            "hooks.0.events.2: is no event",
            "hooks.1.url: is on this machine",
            "hooks.1.secret: begins with whsec_",
            "hooks.1.timeout_secs: must be more than 0",
            "hooks.2.name: is the name of an earlier",
            "hooks.2.command: a hook has a url or a command",
            "hooks.3.name: is missing",
            "hooks.3.command: sh must begin with /",
            "hooks.3.secret: is for a url",
            "hooks.3.events: is empty",
            "hooks.4.command: cannot find /nonexistent",
            "hooks.5.command: this user may not run /etc/passwd",
            "hooks.6.secret: is missing",
            "hooks.7.url: is missing",
            "outbox.retry_max_secs: is less than",
            "outbox.messages_max: 0 is not between 1",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("CANARY"), "{text}");
    }
}
