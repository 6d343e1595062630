//! On whose behalf a request is, and what it may use.

use super::{
    Worker,
    error::Error,
    exchange::Exchange,
    select::{self, Selection},
    view::View,
};
use crate::{
    callers::{Principal, Unauthenticated, credential, rules::RuledRequest},
    inbound::{
        fields::{Field, Fields},
        guard::GuardRejection,
        peer::ConnectionInfo,
    },
};
use http::request::Parts;
use std::sync::Arc;

impl Worker {
    /// Finds out who calls. Judged after the guard: what that rejects need not be known.
    pub(super) fn authenticate(
        &self,
        head: &Parts,
        connection: &ConnectionInfo,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        let callers = &self.shared.callers;
        let fields = Fields::of(&head.headers);
        let credential = credential::find(&head.headers, &fields, callers.reads_tokens())?;
        callers.authenticate(credential, connection, self.shared.clock.now())
    }

    pub(super) fn select(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        principal: Option<&Principal>,
    ) -> Result<Selection, Error> {
        let default = self.shared.config.proxy.default_account.as_ref();
        let mut table = self.table.borrow_mut();
        let view = View { table: table.load(), principal, default };
        select::select(&head.uri, &head.headers, fields, view)
    }

    /// Judges a request by the rules of who sent it. Operators read in the log which one refuses it.
    pub(super) fn enforce_rules(
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
            defaults: &selection.account.headers,
        };
        principal.rules.judge(&request).map_err(|denial| {
            tracing::info!(
                request_id = exchange.request_id.to_str().unwrap_or_default(),
                caller = %principal,
                rule = denial.rule,
                why = denial.why,
                allow = denial.allow.as_deref(),
                "a rule of the caller refuses the request"
            );
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
            return self.guard.check(head, fields);
        };
        if self.known_host.borrow().as_deref() != Some(host.as_bytes()) {
            self.guard.check(head, fields)?;
            *self.known_host.borrow_mut() = Some(host.as_bytes().into());
        }
        Ok(())
    }
}
