//! The rules of `[audit]`.

use super::{COUNT_MAX, Check};
use crate::{
    config::{Audit, Store, file},
    trusted_path,
};
use std::{path::PathBuf, time::Duration};

/// Room for some entries: fewer would make a file of each.
const MIN_BYTES: u64 = 4096;
/// A hundred years.
const KEEP_DAYS_MAX: u64 = 36_500;

impl Check<'_> {
    /// By default the log is in the store's directory; a store without one has none.
    pub(super) fn audit(&mut self, file: &file::Audit, store: &Store, has_keys: bool) -> Audit {
        let path = match &file.path {
            Some(text) => Some(self.audit_path(text, has_keys)),
            None => store.kind.seals().then(|| store.path.join("audit.jsonl")),
        };
        if (1..MIN_BYTES).contains(&file.max_bytes) {
            let message = format_args!("{} is neither 0 nor at least {MIN_BYTES}", file.max_bytes);
            self.fail(&["audit", "max_bytes"], message);
        }
        let keep = self.count(&["audit", "keep"], file.keep, 0..=COUNT_MAX);
        let keep_days = self.count(&["audit", "keep_days"], file.keep_days, 0..=KEEP_DAYS_MAX);
        let keep_at_least = Duration::from_secs(keep_days as u64 * 86_400);
        Audit { path, max_bytes: file.max_bytes, keep, keep_at_least }
    }

    fn audit_path(&mut self, text: &str, has_keys: bool) -> PathBuf {
        let key = ["audit", "path"];
        let path = self.path(&key, text);
        if !text.is_empty() && path.file_name().is_none() {
            self.fail(&key, "does not name a file");
        }
        if path.extension().is_some_and(|extension| extension == "head") {
            self.fail(&key, "must not end in .head, which is where the end of the log is noted");
        }
        if let Err(untrusted) = trusted_path::verify(&path) {
            self.fail(&key, untrusted);
        }
        if !has_keys {
            let help = "run `adsproxy key init`, which makes a key and prints the lines to add";
            let message = "is set, and the key that protects it, encryption.keys, is missing";
            self.fail_with(&key, message, Some(help.to_owned()));
        }
        path
    }
}
