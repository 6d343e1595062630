//! Receivers of events.

use crate::{
    config::{
        HookConfig, HookTarget, Webhook,
        reader::ConfigReader,
        text::{NAME, is_loopback, parse_url},
    },
    id::AccountId,
    secret::Secret,
    trusted_path,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{Access, access};
use std::{collections::HashSet, fs, path::PathBuf, time::Duration};

/// What the specification asks of a key, bytes.
const KEY_MIN_BYTES: usize = 24;

/// The longest that one delivery may hold its slot.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

impl ConfigReader<'_> {
    pub(super) fn hooks(&mut self, hooks: &mut [HookConfig]) {
        let mut names = HashSet::new();
        for (index, hook) in hooks.iter_mut().enumerate() {
            let index = index.to_string();
            let key = |name| ["hooks", index.as_str(), name];
            if hook.name.is_empty() {
                self.missing(&key("name"), "is missing: the log calls the hook by it", None);
            } else if !AccountId::is_alias(&hook.name) {
                self.fail(&key("name"), NAME);
            } else if !names.insert(hook.name.clone()) {
                self.fail(&key("name"), "is the name of an earlier hook too");
            }
            if hook.timeout > TIMEOUT_MAX {
                let message = format!("must be at most {} seconds", TIMEOUT_MAX.as_secs());
                self.fail(&key("timeout_secs"), message);
            }
            if hook.events.is_empty() {
                let message = "is empty: leave it out, or remove the hook";
                self.missing(&key("events"), message, None);
            }
            for at in
                (1..hook.events.len()).filter(|&at| hook.events[..at].contains(&hook.events[at]))
            {
                self.fail(&["hooks", &index, "events", &at.to_string()], "is listed twice");
            }
            self.target(&index, hook);
        }
    }

    fn target(&mut self, index: &str, hook: &mut HookConfig) {
        let key = |name| ["hooks", index, name];
        match (self.document.contains(&key("url")), self.document.contains(&key("command"))) {
            (true, true) => {
                self.fail(&key("command"), "a hook has a url or a command, not both");
            }
            (false, false) => {
                self.missing(&key("url"), "is missing: a hook has a url or a command", None);
            }
            (true, false) => self.webhook(index, hook),
            (false, true) => {
                if self.document.contains(&key("secret")) {
                    self.fail(&key("secret"), "is for a url; a command gets no signature");
                }
                if hook.unsafe_allow_private_addresses {
                    self.fail(&key("unsafe_allow_private_addresses"), "is for a url");
                }
                self.command(&key("command"), &mut hook.command);
                hook.target = HookTarget::Command(hook.command.clone());
            }
        }
    }

    fn webhook(&mut self, index: &str, hook: &mut HookConfig) {
        let key = |name| ["hooks", index, name];
        let unsafe_allow_private_addresses = hook.unsafe_allow_private_addresses;
        match parse_url(hook.url.expose()) {
            Err(message) => self.fail(&key("url"), message),
            Ok(uri) if uri.host().is_some_and(is_loopback) && !unsafe_allow_private_addresses => {
                let help = "if that is intended, add unsafe_allow_private_addresses = true";
                self.fail_with(&key("url"), "is on this machine", Some(help));
            }
            Ok(_) => {}
        }
        let key = key("secret");
        if !self.document.contains(&key) {
            let help = "it signs what is sent, so that the receiver knows us. Make one with\n\
                        echo \"whsec_$(openssl rand -base64 32)\"";
            return self.missing(&key, "is missing", Some(help));
        }
        let secrets = std::mem::take(&mut hook.secrets);
        secrets.iter().for_each(|secret| self.signing_key(&key, secret));
        let url = hook.url.clone();
        self.referred.insert(format!("hooks.{index}.url"), vec![url.clone()]);
        hook.target = HookTarget::Webhook(Webhook { url, secrets, unsafe_allow_private_addresses });
    }

    fn signing_key(&mut self, key: &[&str], secret: &Secret) {
        let length = match secret.expose().strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map(|bytes| bytes.len()).ok(),
            None => Some(secret.expose().len()),
        };
        match length {
            None => self.fail(key, "begins with whsec_, but no base64 follows"),
            Some(length) if length < KEY_MIN_BYTES => {
                self.fail(key, format!("is too short: {KEY_MIN_BYTES} bytes at least"));
            }
            Some(_) => {}
        }
    }

    fn command(&mut self, key: &[&str], command: &mut [String]) {
        let Some(program) = command.first_mut() else {
            return self.missing(key, "is empty", None);
        };
        let mut path = PathBuf::from(&*program);
        self.path(key, &mut path);
        let shown = path.display();
        if path.is_relative() {
            return self
                .fail(key, format_args!("{shown} must begin with /: no search path is used"));
        }
        match fs::metadata(&path) {
            Err(error) => self.fail(key, format_args!("cannot find {shown}: {error}")),
            Ok(file) if !file.is_file() => self.fail(key, format_args!("{shown} is not a file")),
            Ok(_) if access(&path, Access::EXEC_OK).is_err() => {
                self.fail(key, format_args!("this user may not run {shown}"));
            }
            Ok(_) => {
                if let Err(untrusted) = trusted_path::verify(&path) {
                    self.fail(key, untrusted);
                }
            }
        }
        *program = path.to_string_lossy().into_owned();
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
        let shown = format!("{}{:?}", loaded.effective, loaded.config);
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
