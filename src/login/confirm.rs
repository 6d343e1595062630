//! The confirmation of a grant with other profiles, and how a login went, for a program that waits.

use super::{
    Connected, GrantProfiles, LoginError, Logins, MEMORY, finish::NewGrant, is_random_text, key_of,
};
use crate::{audit::Action, id::AccountId, problem::Code, secret::Secret, store::Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a login went.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum LoginOutcome {
    Connected(Connected),
    /// A person must confirm it first.
    Question(Confirmation),
    /// A person did not confirm it.
    Discarded {
        account: String,
    },
    Failed {
        code: String,
        message: String,
        advice: String,
    },
}

/// Whether to replace an account by a grant that has, or may have, other profiles.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Confirmation {
    pub(crate) account: String,
    /// What the confirmation must come with.
    #[serde(with = "super::exposed")]
    #[schemars(with = "String")]
    pub(crate) token: Secret,
    /// The profiles the account has; none if not known.
    pub(crate) before: Option<GrantProfiles>,
    /// The profiles it would have.
    pub(crate) now: GrantProfiles,
}

impl From<&LoginError> for LoginOutcome {
    fn from(error: &LoginError) -> Self {
        let row = error.code.row();
        Self::Failed {
            code: row.code.to_owned(),
            message: error.to_string(),
            advice: row.advice.to_owned(),
        }
    }
}

impl Logins {
    /// Confirms a new grant, or discards it, for one of whose accounts `may` says so.
    ///
    /// # Cancel safety
    /// Safe: the work runs in its own task.
    pub(crate) async fn answer(
        &self,
        token: &str,
        yes: bool,
        may: impl Fn(&AccountId) -> bool,
    ) -> Result<LoginOutcome, LoginError> {
        if !is_random_text(token) {
            return Err(Code::QuestionGone.into());
        }
        let (this, key) = (self.clone(), key_of(token));
        let asked = self.get::<NewGrant>((Space::Grant, &key)).await?;
        if !asked.is_some_and(|(account, _)| may(&account)) {
            return Err(Code::QuestionGone.into());
        }
        self.spawn(async move {
            // Of all callers, one gets it.
            let taken = this.engine.store().entries(Space::Grant).take(&key).await?;
            let (account, grant) = this.parse_valid::<NewGrant>(taken).ok_or(Code::QuestionGone)?;
            let link = grant.link.clone();
            let done = this.conclude(&account, &key, grant, yes).await;
            this.remember_outcome(&account, link.as_deref(), &done).await;
            done
        })
        .await
    }

    async fn conclude(
        &self,
        account: &AccountId,
        key: &str,
        mut grant: NewGrant,
        yes: bool,
    ) -> Result<LoginOutcome, LoginError> {
        let entry = self.entry(Action::ReconnectConfirmed, account).about(&grant.request.origin);
        let entry = if yes { entry } else { entry.failed("declined") };
        let recorded = self.engine.audit().write(entry).await;
        if !yes {
            tracing::info!(account = account.as_str(), "the new grant was discarded");
            return Ok(LoginOutcome::Discarded { account: account.to_string() });
        }
        recorded?;
        match self.keep_if_same(account, None, &mut grant).await {
            Ok(Ok(connected)) => Ok(LoginOutcome::Connected(connected)),
            // It became another user's since the question.
            Ok(Err(_)) => Err(Code::AccountChanged.into()),
            Err(error) => {
                // The same confirmation may be given again once that is fixed.
                let lifetime = self.engine.config().login.confirm_timeout;
                let _ = self.put((Space::Grant, key), account, &grant, lifetime).await;
                Err(error)
            }
        }
    }

    /// How the login that began with a link went, of which account, as JSON; `{"state":"waiting"}` until its end, and
    /// none for an unknown link.
    pub(crate) async fn outcome(
        &self,
        handle: &str,
    ) -> Result<Option<(AccountId, Value)>, LoginError> {
        if handle.len() != 64 || !handle.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        if let Some(known) = self.get::<Value>((Space::Outcome, handle)).await? {
            return Ok(Some(known));
        }
        let link = self.get::<Value>((Space::Ticket, handle)).await?;
        Ok(link.map(|(account, _)| (account, json!({ "state": "waiting" }))))
    }

    /// Keeps how a login went, for the program that made its link.
    pub(super) async fn remember_outcome(
        &self,
        account: &AccountId,
        link: Option<&str>,
        done: &Result<LoginOutcome, LoginError>,
    ) {
        let Some(link) = link else { return };
        let key = (Space::Outcome, link);
        let kept = match done {
            Ok(outcome) => self.put(key, account, outcome, MEMORY).await,
            Err(error) => self.put(key, account, &LoginOutcome::from(error), MEMORY).await,
        };
        // The program that waits then sees it by the account.
        if let Err(error) = kept {
            tracing::warn!(account = account.as_str(), "cannot keep how the login went: {error}");
        }
    }
}
