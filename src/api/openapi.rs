//! The OpenAPI document, made from the table of routes; the schemas are in [`super::schemas`].

use serde_json::{Map, Value, json};

use super::query::{LIMIT_DEFAULT, LIMIT_MAX, TEXT_MAX};
use super::routes::{Good, Kind, Parameter, Place, ROUTES, Route, TAGS};
use super::{reason, schemas};

/// Problems that any request may have: of the server itself (also where a body is sent that nobody
/// wants, or a wrong token that nobody needs), and parameters that are not known.
const ALWAYS: [u16; 14] = [400, 401, 408, 413, 414, 417, 421, 422, 429, 431, 500, 501, 503, 505];
/// The same, of requests with a body.
const WITH_BODY: [u16; 1] = [415];

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES.iter().filter(|route| !route.id.is_empty()) {
        let path = paths.entry(route.path).or_insert_with(|| Value::Object(Map::new()));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let tag = |(name, doc): (&str, &str)| json!({ "name": name, "description": doc });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "webmon",
            "description": "Sites, their checks, and what they add up to. Times are RFC 3339 in UTC. Errors are problem details (RFC 9457). Secrets of sites are shown as `********`, which stands for the value that is there where a site is changed.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": TAGS.map(tag),
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed where tokens are configured. Each has a role: read, write, or admin.",
                },
            },
            "headers": headers(),
            "responses": responses(),
            "schemas": schemas::all(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = Map::new();
    let mut put = |name: &str, value: Value| drop(operation.insert(name.to_owned(), value));
    put("operationId", route.id.into());
    put("tags", json!([route.tag]));
    put("summary", route.summary.into());
    put("description", description(route).into());
    match route.role {
        None => put("security", json!([])),
        Some(role) => put("security", json!([{ "token": [role.as_str()] }, {}])),
    }
    if route.parameters().next().is_some() {
        put("parameters", route.parameters().map(parameter).collect());
    }
    if let Some(body) = route.body {
        let reference = schemas::reference(body.schema);
        let content: Map<String, Value> = body
            .types
            .iter()
            .map(|kind| ((*kind).to_owned(), content(&reference, schemas::example(body.schema))))
            .collect();
        put("requestBody", json!({ "required": true, "content": content }));
    }
    put("responses", answers(route));
    Value::Object(operation)
}

fn description(route: &Route) -> String {
    let role = match route.role {
        None => "Needs no token.".to_owned(),
        Some(role) => format!("Needs the role {}.", role.as_str()),
    };
    [route.doc, &role].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

fn content(schema: &Value, example: Option<Value>) -> Value {
    match example {
        None => json!({ "schema": schema }),
        Some(example) => json!({ "schema": schema, "example": example }),
    }
}

fn answers(route: &Route) -> Value {
    let mut problems: Vec<u16> = ALWAYS.to_vec();
    problems.extend(route.problems);
    if route.role.is_some() {
        problems.push(403);
    }
    if route.body.is_some() {
        problems.extend(WITH_BODY);
    }
    // A path with a parameter may name nothing.
    problems.sort_unstable();
    problems.dedup();
    let mut answers: Vec<(u16, Value)> = route.good.iter().map(|g| (g.status, good(g))).collect();
    for status in
        problems.into_iter().filter(|status| !route.good.iter().any(|g| g.status == *status))
    {
        let reference = format!("#/components/responses/{status}");
        answers.push((status, json!({ "$ref": reference })));
    }
    answers.sort_by_key(|(status, _)| *status);
    answers.into_iter().map(|(status, value)| (status.to_string(), value)).collect()
}

fn good(good: &Good) -> Value {
    let mut answer = Map::new();
    answer.insert("description".to_owned(), good.doc.into());
    let has_link = good.doc.contains("`Link`");
    let names = good.headers.iter().copied().chain(has_link.then_some("Link"));
    let headers: Map<String, Value> = names
        .map(|name| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
        .collect();
    if !headers.is_empty() {
        answer.insert("headers".to_owned(), Value::Object(headers));
    }
    let (kind, schema) = good.content;
    if !kind.is_empty() {
        let content = match schema {
            "" => content(&json!({ "type": "string" }), None),
            schema => content(&schemas::reference(schema), schemas::example(schema)),
        };
        answer.insert("content".to_owned(), json!({ kind: content }));
        if good.status >= 400 {
            let problem = self::content(&schemas::reference("Problem"), None);
            answer["content"]["application/problem+json"] = problem;
        }
    }
    Value::Object(answer)
}

fn headers() -> Value {
    let header = |required: bool, doc: &str| json!({ "description": doc, "required": required, "schema": { "type": "string" } });
    json!({
        "ETag": header(true, "The site's revision, for If-Match and If-None-Match."),
        "Location": header(true, "Where the site is."),
        "Link": header(false, "The next page, as `<…>; rel=\"next\"`; absent on the last one."),
        "Retry-After": header(false, "Seconds after which to try again."),
        "WWW-Authenticate": header(true, "What is to be sent: a bearer token."),
    })
}

/// The problems that any route may have.
fn responses() -> Value {
    let mut statuses: Vec<u16> =
        ROUTES.iter().flat_map(|route| route.problems.iter().copied()).collect();
    statuses.extend(ALWAYS);
    statuses.extend(WITH_BODY);
    statuses.push(403);
    statuses.sort_unstable();
    statuses.dedup();
    let problem = content(&schemas::reference("Problem"), None);
    let answer = |status: u16| {
        let mut answer = json!({
            "description": reason(status),
            "content": { "application/problem+json": problem },
        });
        let header = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 => Some("Retry-After"),
            _ => None,
        };
        if let Some(name) = header {
            answer["headers"] = json!({ name: { "$ref": format!("#/components/headers/{name}") } });
        }
        (status.to_string(), answer)
    };
    statuses.into_iter().map(answer).collect()
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let mut object = json!({
        "name": parameter.name,
        "in": place,
        "description": parameter.doc,
        "required": parameter.required,
        "schema": schema(parameter.kind),
    });
    if parameter.kind == Kind::Flag {
        object["allowEmptyValue"] = true.into();
    }
    object
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => {
            json!({ "type": "string", "minLength": 1, "maxLength": TEXT_MAX, "pattern": "^[^\\u0000]+$" })
        }
        Kind::Limit => {
            json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT })
        }
        Kind::Id => {
            json!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX })
        }
        Kind::Uuid => json!({ "type": "string", "format": "uuid" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::SiteCursor | Kind::CheckCursor => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": 100 })
        }
        Kind::Flag | Kind::Tags => json!({ "type": "string" }),
        Kind::Key => json!({ "type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Method, Role};

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    for (key, value) in object {
                        match value {
                            Value::String(text) if key == "$ref" => into.push(text.clone()),
                            value => references(value, into),
                        }
                    }
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, into)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_path_parameter_is_described() {
        for route in ROUTES {
            let named = route.path.split('/').filter(|part| part.starts_with('{')).count();
            let described = route.parameters().filter(|p| p.place == Place::Path).count();
            assert_eq!(named, described, "{}", route.path);
            assert!(route.id.is_empty() || !route.good.is_empty(), "{}", route.path);
            assert_eq!(route.method == Method::Get, route.role.is_none_or(|r| r == Role::Read));
        }
    }
}
