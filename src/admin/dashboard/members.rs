//! The members of a JSON schema of the OpenAPI document, one under the other, for people.

use serde_json::Value;

/// How deep members of members are shown.
const DEPTH_MAX: usize = 4;

/// A member of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SchemaMember {
    /// With those that it is in, such as `accounts[].state`.
    pub(super) name: String,
    pub(super) kind: String,
    /// Whether it is required in a request, and there in each response.
    pub(super) is_required: bool,
    pub(super) about: String,
}

/// The members of `schema` in `document`; none of what is no object.
pub(super) fn members(document: &Value, schema: &Value) -> Vec<SchemaMember> {
    let mut members = Vec::new();
    add(document, schema, "", DEPTH_MAX, &mut members);
    members
}

/// Without the signs that mark names.
pub(super) fn plain(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('`', "")
}

fn add(document: &Value, schema: &Value, prefix: &str, depth: usize, out: &mut Vec<SchemaMember>) {
    let Some(left) = depth.checked_sub(1) else { return };
    if schema["type"] == "array" || schema["type"][0] == "array" {
        return add(document, &schema["items"], &format!("{prefix}[]"), left, out);
    }
    let required = schema["required"].as_array();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let dot = if prefix.is_empty() { "" } else { "." };
        let name_of = format!("{prefix}{dot}{name}");
        out.push(SchemaMember {
            kind: kind(document, member),
            is_required: required.is_some_and(|all| all.iter().any(|one| one == name)),
            about: plain(&member["description"]),
            name: name_of.clone(),
        });
        add(document, member, &name_of, left, out);
    }
    if let Some(other) = referred(document, schema) {
        add(document, other, prefix, depth, out);
    }
    for choice in choices(schema) {
        add(document, choice, prefix, depth, out);
    }
}

/// The schema that `schema` refers to.
fn referred<'d>(document: &'d Value, schema: &Value) -> Option<&'d Value> {
    document.pointer(schema["$ref"].as_str()?.strip_prefix('#')?)
}

/// What a value may be, but for null.
fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = ["oneOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten();
    all.filter(|one| one["type"] != "null")
}

/// The type of a value in words.
fn kind(document: &Value, schema: &Value) -> String {
    if let Some(other) = referred(document, schema) {
        return kind(document, other);
    }
    let quoted = |value: &Value| value.to_string();
    if !schema["const"].is_null() {
        return quoted(&schema["const"]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(quoted).collect::<Vec<_>>().join(" or ");
    }
    let choices: Vec<_> = choices(schema).map(|one| kind(document, one)).collect();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    let name = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("any");
    match name {
        "array" => format!("list: {}", kind(document, &schema["items"])),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(schema: &Value) -> Vec<String> {
        let document = json!({ "components": { "schemas": {
            "State": { "oneOf": [
                { "enum": ["idle", "due"], "type": "string" },
                { "const": "fresh", "type": "string", "description": "x" },
            ] },
            "One": { "type": "object", "required": ["state"], "properties": {
                "state": { "$ref": "#/components/schemas/State", "description": "The `state`." },
                "left": { "type": ["integer", "null"] },
            } },
            "Loop": { "type": "object", "properties": {
                "next": { "$ref": "#/components/schemas/Loop" },
            } },
        } } });
        let line = |one: SchemaMember| {
            let sign = if one.is_required { "!" } else { "" };
            format!("{}{sign}: {} {}", one.name, one.kind, one.about)
        };
        members(&document, schema).into_iter().map(line).collect()
    }

    #[test]
    fn members_of_members_are_named_with_those_that_they_are_in() {
        let one = json!({ "anyOf": [{ "$ref": "#/components/schemas/One" }, { "type": "null" }] });
        let schema = json!({ "type": "object", "properties": {
            "items": { "type": "array", "items": { "$ref": "#/components/schemas/One" } },
            "one": one,
        } });
        let expected = [
            "items: list: object ",
            "items[].left: integer ",
            "items[].state!: \"idle\" or \"due\" or \"fresh\" The state.",
            "one: object ",
            "one.left: integer ",
            "one.state!: \"idle\" or \"due\" or \"fresh\" The state.",
        ];
        assert_eq!(lines(&schema), expected);
    }

    #[test]
    fn what_is_no_object_has_no_members_and_one_in_itself_has_an_end() {
        assert_eq!(lines(&json!({ "type": "string" })), [""; 0]);
        assert_eq!(lines(&json!(true)), [""; 0]);
        let within = lines(&json!({ "$ref": "#/components/schemas/Loop" }));
        assert_eq!(within.len(), DEPTH_MAX);
    }

    #[test]
    fn each_choice_has_its_members() {
        let schema = json!({ "oneOf": [
            { "$ref": "#/components/schemas/One", "required": ["kind"],
                "properties": { "kind": { "const": "one" } } },
            { "properties": { "kind": { "const": "none" } } },
        ] });
        let kinds = lines(&schema).into_iter().filter(|line| line.starts_with("kind"));
        assert_eq!(kinds.collect::<Vec<_>>(), ["kind!: \"one\" ", "kind: \"none\" "]);
        assert_eq!(lines(&schema).len(), 4);
    }
}
