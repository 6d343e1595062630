//! The configured LWA applications of a running process: their client secrets may change.

use super::enroll::Enroller;
use crate::{config::Config, lwa::Application};
use std::sync::Arc;

impl Enroller {
    /// The application `name` as configured.
    pub fn application(&self, name: &str) -> Option<Arc<Application>> {
        self.applications.get(name).cloned()
    }

    /// Replaces the client secrets of the applications that `config` has too, and says of which.
    ///
    /// A secret belongs to its client id and goes to its endpoint: where `config` has another one,
    /// all of the application waits for a restart.
    pub fn set_client_secrets(&self, config: &Config) -> Vec<String> {
        let mut replaced = Vec::new();
        for (name, application) in &*self.applications {
            if let (Some(configured), Some(running)) =
                (config.applications.get(name), self.config.applications.get(name))
                && configured.client_id == running.client_id
                && configured.token_url == running.token_url
            {
                application.set_secrets(&configured.client_secrets);
                replaced.push(name.clone());
            }
        }
        replaced
    }
}
