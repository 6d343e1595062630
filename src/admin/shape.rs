//! What a route takes and returns, as the OpenAPI document says it.

use crate::problem::Code;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// The schema of a type, by reference where it has a name.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of a route besides its line in the table.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Names of query arguments with their descriptions.
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) body: Option<SchemaOf>,
    /// The status of a success.
    pub(super) status: u16,
    /// Media types of a success, each with its schema; none: plain text.
    pub(super) content: Vec<(&'static str, Option<SchemaOf>)>,
    /// Further responses that are no problem documents.
    pub(super) more: Vec<(u16, &'static str)>,
    /// Codes beyond those of every route of its audience.
    pub(super) problems: Vec<Code>,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Shape {
    fn of(content: (&'static str, Option<SchemaOf>)) -> Self {
        let (query, more, problems) = Default::default();
        Self { query, body: None, status: 200, content: vec![content], more, problems }
    }

    pub(super) fn text() -> Self {
        Self::of(("text/plain", None))
    }

    /// A success is a page, or where a form was sent a redirect to one.
    #[cfg(feature = "dashboard")]
    pub(super) fn page() -> Self {
        Self::of(("text/html", None))
    }

    /// A success is JSON of `T`.
    pub(super) fn json<T: JsonSchema>() -> Self {
        Self::of(("application/json", Some(schema_of::<T>)))
    }

    /// A browser gets a page instead.
    pub(super) fn or_page(mut self) -> Self {
        self.content.push(("text/html", None));
        self
    }

    /// A browser is sent elsewhere.
    pub(super) fn or(mut self, status: u16, why: &'static str) -> Self {
        self.more.push((status, why));
        self
    }

    pub(super) fn created(self) -> Self {
        Self { status: 201, ..self }
    }

    pub(super) fn query(self, arguments: &[(&'static str, &'static str)]) -> Self {
        Self { query: [&self.query, arguments].concat(), ..self }
    }

    /// The body is JSON of `T`, or the same fields as a form.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }

    /// Can fail in these ways.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.problems.extend(codes);
        self
    }

    /// Is about an account, which may be unknown.
    pub(super) fn of_account(self) -> Self {
        self.fails(&[Code::UnknownAccount, Code::AccountRequired])
    }

    /// Changes what is in the store.
    pub(super) fn writes(self) -> Self {
        self.fails(&[Code::StoreFailed, Code::StoreSealed, Code::AuditFailed])
    }
}
