//! Walks the list of routes and the list of objects: each has golden files, and these are as the description says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::fake::Script;
use crate::harness::{World, request, status};
use crate::schema::{Seen, check};

/// A golden file: what was asked, and what was answered.
struct Golden {
    file: String,
    method: String,
    path: String,
    answer: String,
}

impl Golden {
    fn status(&self) -> u16 {
        status(&self.answer)
    }

    /// The documents of the body. Sizes of chunks are numbers, which no answer is.
    fn documents(&self) -> Vec<Value> {
        let body = self.answer.split_once("\n\n").map_or("", |(_, body)| body);
        let lines = body.lines().filter(|line| line.starts_with(['{', '[']) || *line == "null");
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn goldens() -> Vec<Golden> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "http"));
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut parts = text.split("=====\n");
            let asked = parts.next().unwrap().lines().nth(1).unwrap();
            let (method, target) = asked.split_once(' ').unwrap();
            Golden {
                file: path.file_name().unwrap().to_string_lossy().into_owned(),
                method: method.to_owned(),
                path: target.split('?').next().unwrap().to_owned(),
                answer: parts.next().unwrap().to_owned(),
            }
        })
        .collect()
}

/// The lines of a list that are no comment.
fn list(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

async fn description() -> Value {
    let world = World::new(Script::Works).await;
    let answer = world.ask("GET", "/openapi.json").await;
    assert_eq!(status(&answer), 200);
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Whether a path of the description is that of a request.
fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.trim_end_matches('/').split('/');
    for wanted in template.split('/') {
        let Some(part) = parts.next() else { return false };
        if wanted != part && !wanted.starts_with('{') {
            return false;
        }
    }
    template.ends_with("{path}") || parts.next().is_none()
}

/// The described path of a request: of several that fit, the one with the longest fixed part.
fn described<'a>(document: &'a Value, method: &str, path: &str) -> Option<(&'a str, &'a Value)> {
    let paths = document["paths"].as_object().unwrap();
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    let operations = fitting.filter_map(|(template, methods)| {
        let operation = methods.get(method.to_ascii_lowercase())?;
        Some((template.as_str(), operation))
    });
    operations
        .max_by_key(|(template, _)| (template.matches('/').count() - template.matches('{').count(), template.len()))
}

#[tokio::test]
async fn every_route_of_the_list_is_described_and_has_its_golden_files() {
    let document = description().await;
    let mut known: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
    for golden in goldens() {
        if let Some((template, _)) = described(&document, &golden.method, &golden.path) {
            known.entry((golden.method.clone(), template.to_owned())).or_default().insert(golden.status());
        }
    }
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    for line in list("routes.txt") {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        listed.insert((method.to_ascii_lowercase(), path.to_owned()));
        if document["paths"][path].get(method.to_ascii_lowercase()).is_none() {
            wrong.push(format!("{line}: not described"));
        }
        let key = (method.to_owned(), path.to_owned());
        for status in words.map(|word| word.parse::<u16>().unwrap()) {
            if !known.get(&key).is_some_and(|statuses| statuses.contains(&status)) {
                wrong.push(format!("{method} {path}: no golden file with {status}"));
            }
        }
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if !listed.contains(&(method.clone(), path.clone())) {
                wrong.push(format!("{method} {path}: not in routes.txt"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where a schema of an answer stands, and whether the answer is declared at all.
fn schema_of<'a>(document: &'a Value, operation: &'a Value, status: u16) -> Option<Option<&'a Value>> {
    let mut answer = operation["responses"].get(status.to_string())?;
    if let Some(target) = answer.get("$ref").and_then(Value::as_str) {
        answer = document.pointer(target.trim_start_matches('#'))?;
    }
    Some(
        answer["content"].as_object().and_then(|content| content.get("application/json")).map(|media| &media["schema"]),
    )
}

#[tokio::test]
async fn every_golden_answer_is_as_described_and_every_field_is_seen() {
    let document = description().await;
    let (mut seen, mut wrong, mut checked) = (Seen::default(), Vec::new(), 0);
    for golden in goldens() {
        let Some((_, operation)) = described(&document, &golden.method, &golden.path) else { continue };
        let file = &golden.file;
        // A path that is not clean is none of the described ones, and leads to one of them.
        if golden.status() == 307 && golden.path.ends_with('/') {
            continue;
        }
        let Some(schema) = schema_of(&document, operation, golden.status()) else {
            wrong.push(format!("{file}: {} is not declared", golden.status()));
            continue;
        };
        for body in golden.documents() {
            checked += 1;
            let Some(schema) = schema else {
                wrong.push(format!("{file}: a body is not declared"));
                continue;
            };
            if let Err(error) = check(&document, schema, &body, &mut seen) {
                wrong.push(format!("{file}: {error}"));
            }
        }
    }
    assert!(checked > 100, "only {checked} documents were checked");
    for line in list("objects.txt") {
        let mut words = line.split(' ');
        let object = words.next().unwrap();
        let schema = &document["components"]["schemas"][object];
        let mut fields = BTreeSet::new();
        for word in words {
            let field = word.trim_start_matches(['?', '-']);
            fields.insert(field.to_owned());
            let required = schema["required"].as_array().into_iter().flatten().any(|name| name == field);
            if required == word.starts_with('?') {
                wrong.push(format!("{object}.{field}: whether it may be missing is described otherwise"));
            }
            match seen.0.get(&(object.to_owned(), field.to_owned())) {
                None => wrong.push(format!("{object}.{field}: in no golden file")),
                Some(false) if !word.starts_with('-') => wrong.push(format!("{object}.{field}: always empty")),
                Some(_) => {}
            }
        }
        let described: BTreeSet<String> =
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        if described != fields {
            wrong.push(format!("{object}: {described:?} are described"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_page_loads_nothing_and_runs_nothing() {
    let world = World::new(Script::Works).await;
    let answer = world.raw(&request("GET", "/docs", "", b"")).await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(status(&answer), 200);
    assert!(
        head.contains("Content-Type: text/html; charset=utf-8")
            && head.contains("Content-Security-Policy: default-src 'none'"),
        "{head}"
    );
    assert!(page.contains("/pins/{cid}/recover") && page.contains("replication-min"));
    for bad in ["<script", "src=", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(bad), "{bad}");
    }
}
