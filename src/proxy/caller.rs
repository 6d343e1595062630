//! On whose behalf a request is, and what it may use.

use super::{
    Worker,
    error::Error,
    exchange::Exchange,
    select::{self, Selection},
    view::View,
};
use crate::{
    callers::{
        Principal, Unauthenticated,
        credential::{self, Presented},
        rules::{Denial, RuledRequest},
    },
    clock::Now,
    inbound::{
        fields::{Field, Fields},
        guard::{self, GuardRejection},
        path_key,
        peer::{ConnectionInfo, Origin},
    },
};
use http::{HeaderValue, request::Parts};
use std::sync::Arc;

impl Worker {
    /// Finds out who calls. Judged after the guard: what that rejects need not be known.
    pub(super) fn authenticate(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        path_key: Option<String>,
        connection: &ConnectionInfo,
        now: Now,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        let (callers, origin) = (&self.shared.callers, connection.peer.origin());
        // Elsewhere a path goes to Amazon as it is, and a key must not.
        let is_key = path_key::of(&head.uri).is_some_and(credential::is_key);
        if is_key || path_key::holds_key(head.uri.path()) {
            return Err(callers.rejected(origin, now));
        }
        // A client that has a key in its base URL may send it as its token, too.
        let credential = match path_key {
            Some(key) => Presented::Key(key.into()),
            None => credential::find(&head.headers, fields, callers.reads_tokens())?,
        };
        match credential {
            Presented::Token(token) => {
                let known = callers.of_remembered(token, &self.bearers, now);
                known.map(Some).ok_or(Unauthenticated::Unverified(origin))
            }
            other => callers.authenticate(other, connection, now),
        }
    }

    /// Verifies the JWT of a request whose principal is not known because of that.
    pub(super) async fn verified(
        &self,
        principal: Result<Option<Arc<Principal>>, Unauthenticated>,
        head: &Parts,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        match principal {
            // Most requests do not get here, and need no room for it.
            Err(Unauthenticated::Unverified(origin)) => {
                Box::pin(self.verify(head, origin)).await.map(Some)
            }
            known => known,
        }
    }

    async fn verify(
        &self,
        head: &Parts,
        origin: Origin,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        let (callers, clock) = (&self.shared.callers, &*self.shared.clock);
        match credential::find(&head.headers, &Fields::of(&head.headers), true)? {
            Presented::Token(token) => {
                callers.of_token_remembering(token, &self.bearers, origin, clock).await
            }
            _ => Err(Unauthenticated::Rejected),
        }
    }

    /// Selects the account, for a request that the limit and the rules of who sent it allow.
    pub(super) fn select_allowed(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        exchange: &mut Exchange,
    ) -> Result<Selection, Error> {
        let principal = exchange.principal.as_deref();
        principal.map_or(Ok(()), |it| it.take(exchange.began)).map_err(Error::TooManyRequests)?;
        let selection = self.select(head, fields, exchange)?;
        exchange.enter(&selection.account, selection.region)?;
        self.enforce_rules(head, &selection, exchange)?;
        Ok(selection)
    }

    fn select(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        exchange: &Exchange,
    ) -> Result<Selection, Error> {
        let principal = exchange.principal.as_deref();
        let default = exchange.settings.config().proxy.default_account.as_ref();
        let mut table = self.table.borrow_mut();
        let view = View { table: table.load(), principal, default };
        select::select(&head.uri, &head.headers, fields, view)
    }

    /// Judges a request by the rules of who sent it. Operators read in the log which one refuses it.
    fn enforce_rules(
        &self,
        head: &Parts,
        selection: &Selection,
        exchange: &Exchange,
    ) -> Result<(), Error> {
        let Some(principal) = &exchange.principal else { return Ok(()) };
        let request = RuledRequest {
            method: &head.method,
            path: selection.target.path(),
            service: selection.service,
            headers: &head.headers,
            defaults: selection.account.headers(),
        };
        principal.rules.judge(&request).map_err(|denial| {
            log_denial(&exchange.request_id, principal, &denial, None);
            Error::Denied(Box::new(denial))
        })
    }

    /// Asks the guard. The same Host comes again and again, and is parsed once; a request with a
    /// browser's fields never takes the short way.
    pub(super) fn check_host(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
    ) -> Result<(), GuardRejection> {
        let (Field::One(host), Field::Absent, Field::Absent, None) =
            (fields.host, fields.origin, fields.fetch_site, head.uri.authority())
        else {
            self.guard.check(head, fields)?;
            return guard::check_page(fields);
        };
        if self.known_host.borrow().as_deref() != Some(host.as_bytes()) {
            self.guard.check(head, fields)?;
            *self.known_host.borrow_mut() = Some(host.as_bytes().into());
        }
        guard::check_page(fields)
    }
}

/// Tells operators which rule refuses a request, of an MCP tool if it calls one.
pub(super) fn log_denial(
    request_id: &HeaderValue,
    principal: &Principal,
    denial: &Denial,
    tool: Option<&str>,
) {
    tracing::info!(
        request_id = request_id.to_str().unwrap_or_default(),
        caller = %principal,
        rule = denial.rule,
        why = denial.why,
        allow = denial.allow.as_deref(),
        tool,
        "a rule of the caller refuses the request"
    );
}
