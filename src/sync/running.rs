//! The configuration in force, with its applications at work: replaced as a whole.

use crate::{config::Config, lwa::Application};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug)]
pub struct RunningConfig {
    pub config: Arc<Config>,
    pub applications: BTreeMap<String, Arc<Application>>,
}

impl RunningConfig {
    pub fn new(config: Arc<Config>) -> Self {
        let applications = config.applications.iter();
        let applications = applications
            .map(|(name, application)| {
                (name.clone(), Arc::new(Application::new(name, application)))
            })
            .collect();
        Self { config, applications }
    }

    /// The same with another configuration. An application of which only the secrets differ is the
    /// same one, and goes by the new secrets from its next call on: so does a refresh under way.
    pub(super) fn next(&self, config: Arc<Config>) -> Self {
        let mut next = Self::new(config);
        for (name, application) in &mut next.applications {
            let configured = &next.config.applications[name];
            if let Some(running) = self.applications.get(name)
                && running.is_of(configured)
            {
                running.set_secrets(&configured.client_secrets);
                *application = running.clone();
            }
        }
        next
    }
}
