//! `/openapi.json`: the table of routes as an OpenAPI 3.1 document. It holds no secret.

use super::{
    AdminCall,
    respond::{Handled, reply},
    routes::{Audience, Route, Site},
    shape::Shape,
    table::ROUTES,
};
use crate::problem::{Code, Row};
use http::{Method, StatusCode};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

const PROBLEM: &str = "application/problem+json";

/// The document, made once.
pub(super) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| document(ROUTES, env!("CARGO_PKG_VERSION")));

pub(super) async fn show(_: AdminCall) -> Handled {
    Ok(reply(StatusCode::OK, "application/json", format!("{:#}\n", *DOCUMENT)))
}

/// What a response of our own that is no success holds (RFC 9457), with the fields of Amazon's
/// errors.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the document is put together in `problem`")]
struct ProblemDocument {
    r#type: String,
    title: String,
    status: u16,
    /// What happened and what to do.
    detail: String,
    /// A stable name.
    code: String,
    details: String,
    message: String,
    #[serde(rename = "requestId")]
    amazon_request_id: String,
    request_id: String,
}

fn document(routes: &[Route], version: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let problem = json!({ "schema": generator.subschema_for::<ProblemDocument>() });
    let page = json!({ "schema": { "type": "string" } });
    let mut paths = Map::new();
    for route in routes.iter().filter(|route| is_of_programs(route)) {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "adsproxy admin API",
            "version": version,
            "description": "Every failure is a problem document (RFC 9457) with a stable `code`. \
                `x-audience` says who may send a request: `public` ones bring a secret of their \
                own, `read` is health and metrics, `operate` needs a credential.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {
                "Problem": {
                    "description": "A problem document.",
                    "content": { PROBLEM: problem },
                },
                "ProblemOrPage": {
                    "description": "A problem document; for a browser a page.",
                    "content": { PROBLEM: problem, "text/html": page },
                },
            },
            "securitySchemes": {
                "key": { "type": "apiKey", "in": "header", "name": "X-Ads-Key",
                    "description": "A key `adsk_…` of a caller, or `adss_…` of a session." },
                "bearer": { "type": "http", "scheme": "bearer",
                    "description": "Such a key, or a JWT of a configured issuer." },
            },
        },
    })
}

/// Pages are for people, and other routes for our own commands.
pub(super) fn is_of_programs(route: &Route) -> bool {
    route.audience != Audience::Local && !route.is_of_dashboard()
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let shape = (route.shape)();
    let mut parameters: Vec<_> = shape
        .query
        .iter()
        .map(|(name, why)| parameter("query", name, why, json!({ "type": "string" })))
        .collect();
    if route.path.contains("{id}") {
        let mut id = parameter("path", "id", "The id.", json!({ "type": "string" }));
        id["required"] = true.into();
        parameters.push(id);
    }
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "x-audience": route.audience.as_str(),
        "x-for-tenants": route.for_tenants,
        "x-for-users": route.for_users,
        "parameters": parameters,
        "responses": responses(route, generator),
        "security": security(route),
    });
    if let Some(body) = shape.body {
        let schema = body(generator);
        operation["requestBody"] = json!({ "required": true, "content": {
            "application/json": { "schema": schema },
            "application/x-www-form-urlencoded": { "schema": schema },
        } });
    }
    operation
}

fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    json!({ "in": place, "name": name, "description": description, "schema": schema })
}

fn security(route: &Route) -> Value {
    let (key, bearer) = (json!({ "key": [] }), json!({ "bearer": [] }));
    match (route.audience, route.site) {
        // What brings a secret of its own needs no other.
        (Audience::Operate, Site::LinkWith(_)) => json!([key, bearer, {}]),
        (Audience::Operate, _) => json!([key, bearer]),
        (Audience::Public | Audience::Read | Audience::Local | Audience::Dashboard, _) => json!([]),
    }
}

/// The responses by status: the success, others, and the problems with their codes.
fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let shape = (route.shape)();
    let mut responses = Map::new();
    let mut content = Map::new();
    for (kind, schema) in &shape.content {
        let text = || json!({ "type": "string" });
        let schema = schema.map_or_else(text, |schema| json!(schema(generator)));
        content.insert((*kind).to_owned(), json!({ "schema": schema }));
    }
    let success = json!({ "description": route.summary, "content": content });
    responses.insert(shape.status.to_string(), success);
    for (status, why) in &shape.more {
        responses.insert(status.to_string(), json!({ "description": why }));
    }
    let of_browsers = shape.content.iter().any(|(kind, _)| *kind == "text/html");
    for (status, rows) in problems(route, &shape) {
        let codes: Vec<_> = rows.iter().map(|row| row.code).collect();
        let name = if of_browsers { "ProblemOrPage" } else { "Problem" };
        let response = json!({
            "$ref": format!("#/components/responses/{name}"),
            "description": codes.join(", "),
        });
        // A route may say the same status in words of its own.
        responses.entry(status.to_string()).or_insert(response);
    }
    responses.into()
}

/// The problems that a request may get, by status.
pub(super) fn problems(route: &Route, shape: &Shape) -> BTreeMap<u16, Vec<&'static Row>> {
    let mut problems = BTreeMap::<u16, Vec<&Row>>::new();
    for code in usual_problems(route).iter().chain(&shape.problems) {
        let row = code.row();
        let rows = problems.entry(row.status.as_u16()).or_default();
        if !rows.iter().any(|known| known.code == row.code) {
            rows.push(row);
        }
    }
    problems
}

/// What a request to any route of its audience may get.
fn usual_problems(route: &Route) -> Vec<Code> {
    let mut codes = vec![
        Code::BadRequest,
        Code::CallerRejected,
        Code::MethodNotAllowed,
        Code::HeadersTooLarge,
        Code::Overloaded,
        Code::Internal,
    ];
    if route.audience == Audience::Operate {
        codes.extend([Code::AuthenticationRequired, Code::TooManyRequests]);
    }
    if route.method == Method::POST {
        codes.push(Code::BodyTooLarge);
    }
    codes
}
