//! Questions and their answers, and how a login went, for a program that waits for it.

use super::{
    Connected, Finished, Found, Logins, Problem, finish::NewGrant, is_random_text, name_of,
};
use crate::{audit::Action, id::AccountId, store::notes::NoteKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How a login went, as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Outcome {
    Connected(Connected),
    Question { token: Zeroizing<String>, before: Option<Found>, now: Found },
    Discarded { account: String },
    Failed { code: String, message: String, advice: String },
}

impl Logins {
    /// Answers a question. After a no, the new grant is thrown away.
    ///
    /// # Errors
    /// `QuestionGone` if it was answered or is too old; as [`Logins::finish`].
    ///
    /// # Cancel safety
    /// Safe: the work runs in its own task.
    pub async fn answer(&self, token: &str, yes: bool) -> Result<Option<Connected>, Problem> {
        let name = name_of(token);
        let this = self.clone();
        if !is_random_text(token) {
            return Err(Problem::QuestionGone);
        }
        let work = self.spawn(async move {
            let taken = this.take::<NewGrant>(NoteKind::Grant, &name).await?;
            let (account, grant) = taken.ok_or(Problem::QuestionGone)?;
            let ticket = grant.ticket.clone();
            let entry = this.entry(Action::ReconnectConfirmed, &account, &grant.origin);
            let entry = if yes { entry } else { entry.failed("declined") };
            let recorded = this.engine.audit().write(entry).await;
            let done = match yes {
                true if recorded.is_err() => recorded.map(|()| None).map_err(Problem::from),
                true => this.keep_confirmed(&account, &name, grant).await.map(Some),
                false => {
                    tracing::info!(account = account.as_str(), "the new grant was discarded");
                    Ok(None)
                }
            };
            let outcome = match &done {
                Ok(Some(connected)) => Outcome::Connected(connected.clone()),
                Ok(None) => Outcome::Discarded { account: account.to_string() },
                Err(problem) => Outcome::failed(problem),
            };
            this.keep_outcome(&account, ticket.as_deref(), &outcome).await;
            done
        });
        work.await
    }

    /// Keeps what a person said yes to, unless the account has become somebody else's since then.
    async fn keep_confirmed(
        &self,
        account: &AccountId,
        name: &str,
        mut grant: NewGrant,
    ) -> Result<Connected, Problem> {
        match self.keep(account, &grant).await {
            Err(Problem::AccountChanged) => {}
            Err(problem) => {
                // The same yes may be given again once that is mended.
                let lifetime = self.engine.config().login.confirm_timeout;
                let _ = self.note((NoteKind::Grant, name), account, &grant, lifetime).await;
                return Err(problem);
            }
            Ok(connected) => return Ok(connected),
        }
        let (replaces, there) = self.known(account).await;
        if there.is_some_and(|there| there.is_same(&grant.profiles) != Some(true)) {
            return Err(Problem::AccountChanged);
        }
        grant.replaces = replaces;
        self.keep(account, &grant).await
    }

    /// How the login that began with a link went, as JSON; `{"state":"waiting"}` until its end.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn outcome(&self, handle: &str) -> Result<Option<Value>, Problem> {
        let spelled = handle.len() == 64 && handle.bytes().all(|b| b.is_ascii_hexdigit());
        if !spelled {
            return Ok(None);
        }
        if let Some((_, outcome)) = self.look::<Outcome>(NoteKind::Outcome, handle).await? {
            return Ok(Some(serde_json::to_value(outcome).expect("an outcome is plain JSON")));
        }
        let ticket = self.look::<Value>(NoteKind::Ticket, handle).await?;
        Ok(ticket.map(|_| json!({ "state": "waiting" })))
    }

    /// Keeps how a login went, for the program that made its link.
    pub(super) async fn remember_outcome(
        &self,
        account: &AccountId,
        ticket: Option<&str>,
        done: &Result<Finished, Problem>,
    ) {
        let outcome = match done {
            Ok(Finished::Connected(connected)) => Outcome::Connected(connected.clone()),
            Ok(Finished::Question(question)) => Outcome::Question {
                token: Zeroizing::new(question.token.expose().to_owned()),
                before: question.before.clone(),
                now: question.now.clone(),
            },
            Err(problem) => Outcome::failed(problem),
        };
        self.keep_outcome(account, ticket, &outcome).await;
    }

    pub(super) async fn keep_outcome(
        &self,
        account: &AccountId,
        ticket: Option<&str>,
        outcome: &Outcome,
    ) {
        let Some(ticket) = ticket else { return };
        // Whoever waits finds out by the account, then.
        if let Err(error) =
            self.note((NoteKind::Outcome, ticket), account, outcome, super::MEMORY).await
        {
            tracing::warn!(account = account.as_str(), "cannot keep how the login went: {error}");
        }
    }
}

impl Outcome {
    fn failed(problem: &Problem) -> Self {
        Self::Failed {
            code: problem.code().to_owned(),
            message: problem.to_string(),
            advice: problem.advice().to_owned(),
        }
    }
}
