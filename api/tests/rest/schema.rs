//! Holds a document against a JSON Schema: the part of it that the description of the API uses, and stricter, since a
//! field that is not described is an error here.

use std::collections::BTreeMap;

use serde_json::Value;

/// What was seen in the fields of described objects.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) BTreeMap<(String, String), bool>);

/// Checks `value` against `schema`, whose references lead into `document`; says what is wrong and where.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, seen: &mut Seen) -> Result<(), String> {
    let (name, schema) = resolved(document, schema)?;
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        let mut errors = Vec::new();
        for choice in choices {
            match check(document, choice, value, seen) {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(error),
            }
        }
        return Err(errors.join(", nor "));
    }
    has_type(schema, value)?;
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        return Err(format!("{value} is not one of {words:?}"));
    }
    if let Value::Array(items) = value {
        for item in items {
            check(document, &schema["items"], item, seen)?;
        }
    }
    let Value::Object(fields) = value else { return Ok(()) };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            return Err(format!("{name} lacks {required}"));
        }
    }
    for (field, inner) in fields {
        let described = schema["properties"].get(field).or_else(|| schema.get("additionalProperties"));
        let described = described.ok_or_else(|| format!("{field} of {name} is not described"))?;
        check(document, described, inner, seen).map_err(|error| format!("{field}: {error}"))?;
        *seen.0.entry((name.clone(), field.clone())).or_default() |= holds_something(inner);
    }
    Ok(())
}

/// Follows references; the name of the last one, and what it leads to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> Result<(String, &'a Value), String> {
    let (mut name, mut schema) = (String::new(), schema);
    while let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        name = target.rsplit('/').next().unwrap_or_default().to_owned();
        schema = document.pointer(target.trim_start_matches('#')).ok_or_else(|| format!("{target} is nowhere"))?;
    }
    Ok((name, schema))
}

fn has_type(schema: &Value, value: &Value) -> Result<(), String> {
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(format!("no type is described for {value}"));
        }
    };
    if fits { Ok(()) } else { Err(format!("{value} is no {}", schema["type"])) }
}

fn holds_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
