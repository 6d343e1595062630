//! On whose behalf a request is, and what it may use.

use super::{
    Worker,
    error::Error,
    select::{self, Selection},
    view::View,
};
use crate::{
    callers::{Principal, Unauthenticated, credential},
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
