//! Reads the configuration again, for an operator.

use super::{
    AdminCall,
    respond::{Handled, json},
};
use crate::{
    audit::{Action, Entry},
    problem::{Code, Problem},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::pin::Pin;

/// What a reload did.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ReloadReport {
    /// The keys whose values changed and are in force.
    pub applied: Vec<String>,
    /// The keys whose values wait for a restart.
    pub restart_required: Vec<String>,
}

pub type Reloading = Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send>>;

/// How this process reloads.
pub trait Reload: Send + Sync {
    /// Reloads to the end, though the caller may leave, and writes `entry` with the outcome. The
    /// error says what is wrong with the configuration, which names no secret.
    fn reload(&self, entry: Entry) -> Reloading;

    fn restart_required(&self) -> Vec<String>;
}

pub(super) async fn reload(call: AdminCall) -> Handled {
    let Some(reload) = call.admin.0.health.reload.get() else {
        let detail = "This process does not read its configuration again.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    };
    match reload.reload(call.logins.entry_of(Action::ConfigReload).about("api")).await {
        Ok(report) => Ok(json(&report)),
        Err(detail) => {
            let problem = Problem { detail: &detail, ..Code::ConfigurationRejected.problem() };
            Ok(problem.respond(&call.request_id))
        }
    }
}
