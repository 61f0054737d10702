//! The description of the REST API as a page: plain HTML without scripts, that loads nothing.

use std::fmt::Write;

use serde_json::Value;

/// What a browser may do with the page: show it with its own style, and nothing else.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}code,pre{font:13px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}\
h2{margin-top:2.2rem}summary{cursor:pointer;padding:.25rem 0}table{border-collapse:collapse;margin:.4rem 0 1rem}\
td,th{text-align:left;vertical-align:top;padding:.15rem .8rem .15rem 0}b.m{display:inline-block;width:4.5rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#242424}a{color:#8ab4f8}}";

/// The page of an OpenAPI document.
pub(super) fn page(document: &Value) -> String {
    let title = escaped(text(&document["info"]["title"]));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n<h1>{title} {}</h1>\n\
         <p>{}</p>\n<p>For programs: <a href=\"openapi.json\">openapi.json</a>.</p>\n<h2>Routes</h2>\n",
        escaped(text(&document["info"]["version"])),
        prose(text(&document["info"]["description"])),
    );
    for (path, methods) in fields(&document["paths"]) {
        for (method, operation) in fields(methods) {
            route(&mut page, method, path, operation);
        }
    }
    page.push_str("<h2>Errors</h2>\n<table>");
    for (name, answer) in fields(&document["components"]["responses"]) {
        row(&mut page, &[&escaped(name.trim_start_matches('E')), &prose(text(&answer["description"]))]);
    }
    page.push_str("</table>\n<h2>Objects</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        object(&mut page, name, schema);
    }
    page.push_str("</body></html>\n");
    page
}

fn route(page: &mut String, method: &str, path: &str, operation: &Value) {
    let (method, path) = (escaped(&method.to_ascii_uppercase()), escaped(path));
    let summary = prose(text(&operation["summary"]));
    let _ =
        writeln!(page, "<details><summary><b class=\"m\">{method}</b> <code>{path}</code> &mdash; {summary}</summary>");
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        page.push_str("<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>");
        for parameter in parameters {
            let name = format!("<code>{}</code>", escaped(text(&parameter["name"])));
            let place = escaped(text(&parameter["in"]));
            row(page, &[&name, &place, &kind(&parameter["schema"]), &prose(text(&parameter["description"]))]);
        }
        page.push_str("</table>");
    }
    for (media, content) in fields(&operation["requestBody"]["content"]) {
        let _ = writeln!(page, "<p>Body: <code>{}</code> {}</p>", escaped(media), kind(&content["schema"]));
    }
    page.push_str("<table><tr><th>Status</th><th></th></tr>");
    for (status, answer) in fields(&operation["responses"]) {
        let Some(description) = answer["description"].as_str() else { continue };
        let mut about = prose(description);
        for (_, content) in fields(&answer["content"]) {
            let lines = if answer["x-lines"] == true { "one after the other: " } else { "" };
            let _ = write!(about, " {lines}{}", kind(&content["schema"]));
        }
        for (header, _) in fields(&answer["headers"]) {
            let _ = write!(about, " <code>{}</code>", escaped(header));
        }
        row(page, &[&escaped(status), &about]);
    }
    page.push_str("</table></details>\n");
}

fn object(page: &mut String, name: &str, schema: &Value) {
    let name = escaped(name);
    let _ = write!(
        page,
        "<details id=\"{name}\"><summary><code>{name}</code> {}</summary>",
        prose(text(&schema["description"]))
    );
    if schema["properties"].is_object() {
        page.push_str("<table>");
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (field, inner) in fields(&schema["properties"]) {
            let always = if required.iter().any(|name| name == field) { "" } else { "not always there" };
            row(page, &[&format!("<code>{}</code>", escaped(field)), &kind(inner), always]);
        }
        page.push_str("</table>");
    } else {
        let _ = write!(page, "<pre>{}</pre>", escaped(&format!("{schema:#}")));
    }
    page.push_str("</details>\n");
}

/// A schema in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        return escaped(&words.iter().map(text).collect::<Vec<_>>().join(" | "));
    }
    let mut kinds = match schema["type"].as_array() {
        Some(kinds) => escaped(&kinds.iter().map(text).collect::<Vec<_>>().join(" or ")),
        None => escaped(text(&schema["type"])),
    };
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            let _ = write!(kinds, " of {}", kind(&schema[inner]));
        }
    }
    kinds
}

fn row(page: &mut String, cells: &[&str]) {
    page.push_str("<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    page.push_str("</tr>\n");
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text with `code` between backticks.
fn prose(plain: &str) -> String {
    let parts = plain.split('`').map(escaped).enumerate();
    parts.map(|(place, part)| if place % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

fn escaped(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_the_document_becomes_markup() {
        let evil = "<script>\"&";
        let document = json!({
            "info": {"title": evil, "version": evil, "description": evil},
            "paths": {evil: {evil: {"summary": evil, "parameters": [{"name": evil, "in": evil, "description": evil,
                "schema": {"type": evil, "enum": [evil]}}], "responses": {evil: {"description": evil,
                "content": {"a": {"schema": {"$ref": evil}}}, "headers": {evil: {}}}},
                "requestBody": {"content": {evil: {"schema": {"type": [evil], "items": {"type": evil}}}}}}}},
            "components": {"responses": {evil: {"description": evil}},
                "schemas": {evil: {"properties": {evil: {"type": evil}}, "description": evil}, "b": {"const": evil}}},
        });
        let page = page(&document);
        assert!(!page.contains("<script") && !page.contains("<SCRIPT"), "{page}");
        assert!(page.contains("&lt;script&gt;&quot;&amp;"));
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(prose("a `b<` c"), "a <code>b&lt;</code> c");
    }
}
