//! Whose grants we hold and what opens them: applications, accounts, encryption keys.

use super::Check;
use crate::{
    config::{
        Account, Application, CALLBACK_PATH, DEFAULT_APPLICATION, Encryption, EncryptionKey,
        Material, StoreKind,
        file::{self, File},
        is_callback_path,
        secret_ref::{Found, Secrets},
    },
    id::{AccountId, placeholder_alias},
    provider::ads,
    secret::{RefreshToken, Secret},
};
use base64::{Engine, engine::general_purpose};
use http::{HeaderName, HeaderValue, header};
use std::collections::{BTreeMap, HashSet};
use zeroize::Zeroizing;

/// The key size of XChaCha20-Poly1305.
const KEY_BYTES: usize = 32;

/// A stolen copy of the store allows any number of guesses.
const PASSPHRASE_MIN_CHARS: usize = 12;

/// Headers an account must not set: adsproxy writes or removes them itself.
const RESERVED: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("amazon-advertising-api-clientid"),
];
/// The same, for names the `http` crate has no constant for.
const RESERVED_NAMES: [&str; 3] = ["amazon-ads-clientid", "keep-alive", "proxy-connection"];

impl Check<'_> {
    pub(super) fn applications(&mut self, file: &File) -> BTreeMap<String, Application> {
        let mut applications = BTreeMap::new();
        if let Some(lwa) = &file.lwa {
            let application = self.application(&["lwa"], lwa);
            applications.extend(application.map(|found| (DEFAULT_APPLICATION.to_owned(), found)));
        }
        for (name, application) in &file.applications {
            let key = ["applications", name.as_str()];
            if !AccountId::is_alias(name) {
                let message = "a name is 1 to 64 letters, digits, '.', '_' or '-'";
                self.fail(&key, message);
            }
            if name == DEFAULT_APPLICATION && file.lwa.is_some() {
                self.fail(&key, "is the same application as [lwa]; keep one of them");
            }
            let application = self.application(&key, application);
            applications.extend(application.map(|found| (name.clone(), found)));
        }
        if file.lwa.is_none() && file.applications.is_empty() {
            let help = "add [lwa] with client_id and client_secret, \
                        or set AMAZON_CLIENT_ID and AMAZON_CLIENT_SECRET";
            self.lacks(&["lwa"], "there is no LWA application", Some(help.to_owned()));
        }
        applications
    }

    /// `None` if it lacks what has no default.
    fn application(&mut self, at: &[&str], file: &file::Application) -> Option<Application> {
        let key = |name| [at, &[name]].concat();
        let client_id = match &file.client_id {
            Some(id) if is_header_text(id) && id.len() <= ads::CLIENT_ID_MAX_BYTES => {
                Some(id.clone())
            }
            Some(_) => {
                let message =
                    format!("must be 1 to {} visible ASCII characters", ads::CLIENT_ID_MAX_BYTES);
                self.fail(&key("client_id"), message);
                None
            }
            None => {
                self.lacks(&key("client_id"), "is missing", None);
                None
            }
        };
        let client_secrets = match &file.client_secret {
            Some(secrets) => self.secrets(&key("client_secret"), secrets),
            None => {
                let help = "write client_secret = { env = \"AMAZON_CLIENT_SECRET\" } \
                            or client_secret = { file = \"/path\" }";
                self.lacks(&key("client_secret"), "is missing", Some(help.to_owned()));
                Vec::new()
            }
        };
        let token_url = self.url(&key("token_url"), &file.token_url);
        let fallbacks = file.fallback_token_urls.iter().flat_map(|list| &list.0).enumerate();
        let fallback_token_urls = fallbacks
            .map(|(index, url)| {
                self.url(&[at, &["fallback_token_urls", &index.to_string()]].concat(), url)
            })
            .collect();
        let authorize_url = self.url(&key("authorize_url"), &file.authorize_url);
        let redirect_uri = self.url(&key("redirect_uri"), &file.redirect_uri);
        let is_here = matches!(redirect_uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if is_here && !is_callback_path(redirect_uri.path()) {
            let path = redirect_uri.path();
            self.warn(
                &key("redirect_uri"),
                format!("{path} is another page of adsproxy, so no login comes back: use {CALLBACK_PATH}"),
            );
        }
        if file.scopes.0.is_empty() {
            self.lacks(&key("scopes"), "needs at least one scope", None);
        }
        let revocation_url = file.revocation_url.as_ref();
        let revocation_url = revocation_url.map(|url| self.url(&key("revocation_url"), url));
        Some(Application {
            client_id: client_id?,
            client_secrets,
            token_url,
            fallback_token_urls,
            authorize_url,
            redirect_uri: file.redirect_uri.clone(),
            scopes: file.scopes.0.clone(),
            revocation_url,
        })
    }

    /// All of the secrets that can be had.
    pub(super) fn secrets(&mut self, key: &[&str], secrets: &Secrets) -> Vec<Secret> {
        if secrets.refs.is_empty() {
            self.lacks(key, "the list is empty", None);
        }
        let mut found = Vec::new();
        for (index, reference) in secrets.refs.iter().enumerate() {
            match reference.resolve(self.environment) {
                Ok(Found { secret, exposed }) => {
                    found.push(secret);
                    match exposed {
                        // It opens the whole store, and adsproxy makes it with the right mode.
                        Some(exposed) if key[0] == "encryption" => self.fail(key, exposed),
                        Some(exposed) => self.warn(key, exposed),
                        None => {}
                    }
                }
                Err(error) if secrets.listed => {
                    self.fail(&[key, &[&index.to_string()]].concat(), error);
                }
                Err(error) => {
                    let makes_one =
                        key.ends_with(&["secret"]) && key[0] == "encryption" && error.is_absence();
                    let help = makes_one.then(|| "`adsproxy key init` makes a key".to_owned());
                    self.fail_with(key, error, help);
                }
            }
        }
        found
    }

    /// One secret where a list makes no sense.
    fn secret(&mut self, key: &[&str], secrets: &Secrets) -> Option<Secret> {
        if secrets.listed {
            self.fail(key, "takes one secret, not a list");
            return None;
        }
        self.secrets(key, secrets).pop()
    }

    pub(super) fn accounts(&mut self, file: &File) -> BTreeMap<AccountId, Account> {
        let mut accounts = BTreeMap::new();
        for (alias, account) in &file.accounts {
            let key = ["accounts", alias.as_str()];
            let id = match alias.parse::<AccountId>() {
                Ok(id) => Some(id),
                Err(error) => {
                    self.fail(&key, error);
                    None
                }
            };
            let account = self.account(alias, account, file);
            if let (Some(id), Some(account)) = (id, account) {
                accounts.insert(id, account);
            }
        }
        accounts
    }

    fn account(&mut self, alias: &str, account: &file::Account, file: &File) -> Option<Account> {
        let key = |name| ["accounts", alias, name];
        let region = match &account.region {
            None => {
                self.lacks(&key("region"), "is missing: \"na\", \"eu\" or \"fe\"", None);
                None
            }
            Some(text) => {
                let region = ads::region(text);
                if region.is_none() {
                    let message = format_args!("{text:?}: {}", ads::REGION_SPELLING);
                    self.fail(&key("region"), message);
                }
                region
            }
        };
        let application = &account.application;
        let is_default = application == DEFAULT_APPLICATION && file.lwa.is_some();
        if !is_default && !file.applications.contains_key(application) {
            let mut known: Vec<&str> = file.applications.keys().map(String::as_str).collect();
            known.extend(file.lwa.as_ref().map(|_| DEFAULT_APPLICATION));
            let message = format!(
                "there is no application {application:?}; configured: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            );
            self.fail(&key("application"), message);
        }
        let refresh_token = account.refresh_token.as_ref();
        let refresh_token =
            refresh_token.and_then(|secrets| self.refresh_token(&key("refresh_token"), secrets));
        // Taken for a new one, it would replace the real one in the store.
        let named = refresh_token.as_ref().and_then(|t| placeholder_alias(t.expose(), "Atzr"));
        if named.is_some_and(|named| named == alias || file.accounts.contains_key(named)) {
            let message = "holds a placeholder of adsproxy's own, which `adsproxy exec` and `env` \
                           set: start from a shell without it";
            self.fail(&key("refresh_token"), message);
        }
        let headers = self.headers(alias, &account.headers);
        Some(Account { region: region?, application: application.clone(), refresh_token, headers })
    }

    fn refresh_token(&mut self, key: &[&str], secrets: &Secrets) -> Option<Secret> {
        let secret = self.secret(key, secrets)?;
        match RefreshToken::parse(&secret) {
            Ok(token) => {
                if !token.is_usual {
                    self.warn(key, RefreshToken::UNUSUAL);
                }
                Some(token.secret)
            }
            Err(error) => {
                self.fail(key, error);
                None
            }
        }
    }

    fn headers(
        &mut self,
        alias: &str,
        headers: &BTreeMap<String, file::HeaderText>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut checked: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in headers {
            let key = ["accounts", alias, "headers", name.as_str()];
            let Ok(header) = name.parse::<HeaderName>() else {
                self.fail(&key, "is no header name");
                continue;
            };
            if is_reserved(&header) {
                self.fail(&key, "is set or removed by adsproxy itself");
            }
            if checked.iter().any(|(other, _)| *other == header) {
                self.fail(&key, "is there twice; header names have no case");
            }
            match HeaderValue::from_str(&value.0) {
                Ok(value) if !value.is_empty() => checked.push((header, value)),
                _ => self.fail(&key, "must be one or more visible ASCII characters"),
            }
        }
        checked
    }

    pub(super) fn encryption(&mut self, file: &file::Encryption, kind: StoreKind) -> Encryption {
        if file.keys.is_empty() && kind.seals() {
            let init = if kind == StoreKind::Keyring { "key init --keyring" } else { "key init" };
            let help = format!(
                "run `adsproxy {init}`, which makes a key and prints the lines to add here"
            );
            let message = "is empty, and the store seals what it keeps";
            self.lacks(&["encryption", "keys"], message, Some(help));
        }
        let mut ids = HashSet::new();
        let mut keys = Vec::new();
        for (index, key) in file.keys.iter().enumerate() {
            let index = index.to_string();
            let id = key.id.clone().unwrap_or_default();
            let at = ["encryption", "keys", index.as_str(), "id"];
            if !AccountId::is_alias(&id) {
                let message = "must be 1 to 64 letters, digits, '.', '_' or '-'";
                self.fail(&at, message);
            }
            if !ids.insert(id.clone()) {
                self.fail(&at, format_args!("{id:?} is the id of an earlier key too"));
            }
            let material = self.material(&index, key, kind);
            keys.extend(material.map(|material| EncryptionKey { id, material }));
        }
        Encryption { keys }
    }

    /// What a key is made of; none if that is wrong or missing.
    fn material(
        &mut self,
        index: &str,
        key: &file::EncryptionKey,
        kind: StoreKind,
    ) -> Option<Material> {
        let at = |name| ["encryption", "keys", index, name];
        match (&key.secret, &key.passphrase) {
            (Some(_), Some(_)) => {
                self.fail(&at("passphrase"), "a key has a secret or a passphrase, not both");
                None
            }
            (Some(secret), None) => {
                let secret = self.secret(&at("secret"), secret)?;
                let secret = canonical_key(&secret).map(Material::Secret);
                if secret.is_none() {
                    let help = "`adsproxy key init` makes one; so does `openssl rand -base64 32`";
                    let message = "is not the base64 of 32 bytes";
                    self.fail_with(&at("secret"), message, Some(help.to_owned()));
                }
                secret
            }
            (None, Some(passphrase)) => {
                let passphrase = self.secret(&at("passphrase"), passphrase)?;
                if passphrase.expose().chars().count() < PASSPHRASE_MIN_CHARS {
                    let message = format!("is shorter than {PASSPHRASE_MIN_CHARS} characters");
                    self.fail(&at("passphrase"), message);
                }
                Some(Material::Passphrase(passphrase))
            }
            (None, None) if kind == StoreKind::Keyring => Some(Material::Keyring),
            (None, None) => {
                self.lacks(&at("secret"), "is missing", None);
                None
            }
        }
    }
}

/// `secret` in standard base64 with padding, if it is 32 bytes in any usual base64.
fn canonical_key(secret: &Secret) -> Option<Secret> {
    let text = secret.expose().trim_end_matches('=');
    let engine = if text.contains(['-', '_']) {
        general_purpose::URL_SAFE_NO_PAD
    } else {
        general_purpose::STANDARD_NO_PAD
    };
    let bytes = Zeroizing::new(engine.decode(text).ok()?);
    (bytes.len() == KEY_BYTES).then(|| Secret::new(general_purpose::STANDARD.encode(&*bytes)))
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_reserved(header: &HeaderName) -> bool {
    // A server may read `_` as `-`, so a look-alike is as reserved as the name itself.
    let name = header.as_str().replace('_', "-");
    RESERVED.iter().any(|reserved| *reserved == *name)
        || RESERVED_NAMES.contains(&name.as_str())
        || name.starts_with("x-ads-")
}
