//! How accounts are connected: `[login]`.

use super::{COUNT_MAX, Check};
use crate::config::{Login, file};

impl Check<'_> {
    pub(super) fn login(&mut self, file: &file::Login) -> Login {
        let mut timeout = |key: &str, value| self.timeout(&["login", key], value);
        Login {
            timeout: timeout("timeout_secs", file.timeout_secs),
            confirm_timeout: timeout("confirm_timeout_secs", file.confirm_timeout_secs),
            reconnect_link: timeout("reconnect_link_secs", file.reconnect_link_secs),
            pending_max: self.count(&["login", "pending_max"], file.pending_max, 1..=COUNT_MAX),
        }
    }
}
