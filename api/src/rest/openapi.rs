//! The description of the REST API as an OpenAPI document, made from the table of routes.

use std::sync::LazyLock;

use cluster_types::VERSION;
use serde_json::{Map, Value, json};

use super::parameters::Place;
use super::router::Captured;
use super::table::{Answer, Carries, Entry, TABLE};
use super::{Rest, docs, schemas};
use crate::reply::{self, Reply};

/// Made once: it does not change while the program runs.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static PAGE: LazyLock<String> = LazyLock::new(|| docs::page(&DOCUMENT));

/// Error answers and when they come.
const FAILURES: &[(&str, &str)] = &[
    ("400", "The request is wrong as it stands; nothing was done."),
    ("401", "Who asks is not known."),
    ("403", "A page, or a host name, that has no business here; or a user, or a token, that may not do this."),
    ("404", "The pin is not part of the pinset, or nothing is at this path."),
    ("405", "The path has other methods: `Allow` names them. Without a body."),
    ("408", "The body did not come in time."),
    ("413", "The body is too large."),
    ("431", "The head is too large. Without a body."),
    ("500", "The cluster refused, or something failed; the text says why."),
    ("503", "Not now; the same request may succeed later."),
    ("504", "It may or may not have taken effect."),
];

impl Rest {
    /// `GET /openapi.json`.
    pub(super) fn openapi() -> Reply {
        reply::json(&*DOCUMENT)
    }

    /// `GET /docs`.
    pub(super) fn docs() -> Reply {
        Ok(reply::page(&PAGE, docs::POLICY))
    }
}

/// The whole document.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for entry in TABLE {
        let path = entry.path.replace('…', "");
        paths.entry(path).or_insert_with(|| json!({}))[entry.method.as_str().to_ascii_lowercase()] = operation(entry);
    }
    let failures: Map<String, Value> =
        FAILURES.iter().map(|(status, about)| (format!("E{status}"), failure(status, about))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "REST API of ipfs-cluster",
            "version": VERSION,
            "description": "Listings are one JSON document after the other, each ended by a line feed (`x-lines`); \
                what goes wrong after the first stands in the trailer X-Stream-Error.",
        },
        "security": [{}, {"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "responses": failures,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    })
}

fn failure(status: &str, about: &str) -> Value {
    let mut failure = json!({"description": about});
    if !matches!(status, "405" | "431") {
        failure["content"] = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
    }
    failure
}

fn operation(entry: &Entry) -> Value {
    let mut operation = json!({
        "operationId": entry.id,
        "summary": entry.about,
        "responses": answers(entry),
    });
    let parameters: Vec<Value> = entry.all_parameters().map(super::parameters::Parameter::described).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    match entry.carries {
        Carries::Nothing => {}
        Carries::Object(schema) => {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": named(schema)}}});
        }
        Carries::Files => {
            let files = json!({"type": "object", "properties": {"file": {"type": "array",
                "items": {"type": "string", "contentMediaType": "application/octet-stream"}}}, "required": ["file"]});
            operation["requestBody"] = json!({"required": true, "content": {"multipart/form-data": {"schema": files}}});
        }
    }
    if entry.path == "/health" {
        operation["security"] = json!([]);
    }
    operation
}

fn answers(entry: &Entry) -> Map<String, Value> {
    let mut answers = good_answers(entry);
    let has_part = entry.all_parameters().any(|parameter| parameter.place == Place::Path);
    for (status, _) in FAILURES {
        let can_be = match *status {
            // What stands for a part of the path may make it another path, or none.
            "404" => has_part,
            "408" | "413" => entry.carries != Carries::Nothing,
            _ => true,
        };
        if can_be {
            answers.insert((*status).to_owned(), json!({"$ref": format!("#/components/responses/E{status}")}));
        }
    }
    if has_part {
        for status in ["301", "307"] {
            answers.insert(
                status.to_owned(),
                json!({"description": "The path is not clean: `Location` has the clean one."}),
            );
        }
    }
    answers
}

fn good_answers(entry: &Entry) -> Map<String, Value> {
    let (status, mut answer) = match entry.answer {
        Answer::Nothing | Answer::Alive => ("204", json!({"description": "Done."})),
        Answer::Object(schema) | Answer::Written(schema) => ("200", content(&named(schema))),
        Answer::Array(schema) => ("200", content(&json!({"type": "array", "items": named(schema)}))),
        Answer::Lines(schema) => {
            let mut lines = content(&named(schema));
            lines["x-lines"] = json!(true);
            ("200", lines)
        }
        Answer::Added(schema) => {
            let mut lines = content(&json!({"anyOf": [named(schema), {"type": "array", "items": named(schema)}]}));
            lines["x-lines"] = json!(true);
            ("200", lines)
        }
        Answer::Car => {
            let archive = json!({"schema": {"type": "string", "format": "binary"}});
            ("200", json!({"description": "The archive.", "content": {"application/vnd.ipld.car": archive}}))
        }
        Answer::Html => {
            ("200", json!({"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}))
        }
    };
    if let Some((name, schema)) = header(entry) {
        answer["headers"] = json!({name: {"schema": schema}});
    }
    let mut answers = Map::from_iter([(status.to_owned(), answer)]);
    if matches!(entry.answer, Answer::Lines(_)) {
        answers.insert("204".to_owned(), json!({"description": "There is none."}));
    }
    answers
}

/// What an answer says beside its body.
fn header(entry: &Entry) -> Option<(&'static str, Value)> {
    let read = (entry.route)(Captured::default()).is_read();
    match entry.answer {
        Answer::Written(_) => {
            Some(("X-Cluster-Commit", json!({"type": "string", "pattern": "^(eventual|[0-9]+-[0-9]+)$"})))
        }
        Answer::Alive => Some(("X-Cluster-Quorum", json!({"type": "string", "enum": ["true", "false"]}))),
        Answer::Nothing
        | Answer::Object(_)
        | Answer::Array(_)
        | Answer::Lines(_)
        | Answer::Added(_)
        | Answer::Car
        | Answer::Html => read.then(|| ("X-Cluster-Applied", json!({"type": "integer", "minimum": 0}))),
    }
}

fn content(schema: &Value) -> Value {
    json!({"description": "Done.", "content": {"application/json": {"schema": schema}}})
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Calls `see` with every `$ref` below `value`.
    fn references(value: &Value, see: &mut impl FnMut(&str)) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    see(target);
                }
                map.values().for_each(|inner| references(inner, see));
            }
            Value::Array(list) => list.iter().for_each(|inner| references(inner, see)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document();
        let mut seen = BTreeSet::new();
        references(&document, &mut |target| {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target} is nowhere");
            seen.insert(target.to_owned());
        });
        for schema in schemas::all().keys() {
            assert!(seen.contains(&format!("#/components/schemas/{schema}")), "nothing uses {schema}");
        }
    }

    #[test]
    fn every_route_is_described_once_and_found_by_its_own_path() {
        let document = document();
        let mut ids = BTreeSet::new();
        for entry in TABLE {
            assert!(ids.insert(entry.id), "{} is there twice", entry.id);
            let path = entry.path.replace('…', "");
            let operation = &document["paths"][&path][entry.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["operationId"], entry.id, "{path}");
            assert!(!entry.about.is_empty(), "{path}");
            let in_path = entry.all_parameters().filter(|parameter| parameter.place == Place::Path).count();
            assert_eq!(in_path, entry.path.matches('{').count(), "{path}");
            let method = entry.method.as_str().parse().unwrap();
            assert!(super::super::router::find(&method, &path).is_ok(), "{path}");
        }
    }
}
