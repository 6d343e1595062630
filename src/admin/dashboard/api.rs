//! The admin API as `/openapi.json` has it, for people.

use super::{
    Frame,
    members::{SchemaMember, members, plain},
    page,
};
use crate::admin::{AdminCall, openapi, respond::Handled, routes::Route, table::ROUTES};
use askama::Template;
use http::StatusCode;
use serde_json::Value;

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    frame: Frame,
    operations: Vec<Operation>,
}

struct Operation {
    id: &'static str,
    method: String,
    path: &'static str,
    summary: String,
    audience: &'static str,
    for_tenants: bool,
    arguments: Vec<ApiArgument>,
    /// Members of the request body; none where there is no body.
    body: Option<Vec<SchemaMember>>,
    success: Success,
    /// Statuses with the codes of their problems.
    failures: Vec<(u16, String)>,
}

/// An argument of the path or the query.
struct ApiArgument {
    name: String,
    place: String,
    about: String,
}

struct Success {
    status: u16,
    /// Media types.
    content: String,
    members: Vec<SchemaMember>,
    /// Other responses that are no failures.
    others: Vec<(u16, &'static str)>,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let operations = ROUTES.iter().filter(|route| openapi::is_of_programs(route)).map(describe);
    let frame = call.frame("API", "api");
    page(StatusCode::OK, &ApiPage { frame, operations: operations.collect() })
}

fn describe(route: &Route) -> Operation {
    let (shape, document) = ((route.shape)(), &*openapi::DOCUMENT);
    let operation =
        &document["paths"][route.path][route.method.as_str().to_ascii_lowercase().as_str()];
    let failures = openapi::problems(route, &shape).into_iter().map(|(status, rows)| {
        let codes: Vec<_> = rows.iter().map(|row| row.code).collect();
        (status, codes.join(", "))
    });
    let arguments = operation["parameters"].as_array().into_iter().flatten();
    let of = |content: &Value| members(document, &content["application/json"]["schema"]);
    let content = &operation["responses"][shape.status.to_string()]["content"];
    let kinds: Vec<_> = shape.content.iter().map(|(kind, _)| *kind).collect();
    Operation {
        id: route.operation,
        method: route.method.to_string(),
        path: route.path,
        summary: route.summary.replace('`', ""),
        audience: route.audience.as_str(),
        for_tenants: route.for_tenants,
        arguments: arguments.map(ApiArgument::of).collect(),
        body: operation.get("requestBody").map(|body| of(&body["content"])),
        success: Success {
            status: shape.status,
            content: kinds.join(" or "),
            members: of(content),
            others: shape.more.clone(),
        },
        failures: failures.collect(),
    }
}

impl ApiArgument {
    fn of(parameter: &Value) -> Self {
        Self {
            name: plain(&parameter["name"]),
            place: plain(&parameter["in"]),
            about: plain(&parameter["description"]),
        }
    }
}
