//! The environment: `CLUSTER_<SECTION>_<FIELD>` overrides what the file says.
//!
//! The names follow from the table: the section's prefix, then the key without underscores in upper case, nested keys
//! joined by `_`. A variable that is set but empty counts as set.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ConfigError;
use super::table::{Component, Field, Kind};
use super::value::HIDDEN;

/// Where variables come from, so that tests can bring their own.
pub trait Environment {
    /// The variable's value, if it is set.
    fn variable(&self, name: &str) -> Option<Result<String, NotText>>;
}

/// A variable is set to what is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<Result<String, NotText>> {
        std::env::var_os(name).map(|value| value.into_string().map_err(|_| NotText))
    }
}

impl Environment for BTreeMap<String, String> {
    fn variable(&self, name: &str) -> Option<Result<String, NotText>> {
        self.get(name).cloned().map(Ok)
    }
}

/// The variable that overrides a field.
pub(super) fn variable_name(component: &Component, field: &Field) -> String {
    let parts: Vec<String> = field.key.split('.').map(|part| part.replace('_', "").to_ascii_uppercase()).collect();
    format!("{}_{}", component.environment, parts.join("_"))
}

/// The error about a variable that is not UTF-8.
pub(super) fn not_text(component: &Component, field: &Field, name: &str) -> ConfigError {
    ConfigError::BadValue {
        key: component.full_key(field.key),
        value: "bytes that are not UTF-8".to_owned(),
        origin: format!("environment variable {name}"),
        reason: "write it as text".to_owned(),
    }
}

/// Reads a variable's text as the JSON value that the file would hold in its place.
pub(super) fn parse_variable(
    component: &Component,
    field: &Field,
    name: &str,
    text: &str,
) -> Result<Option<Value>, ConfigError> {
    let fail = |reason: &str| ConfigError::BadValue {
        key: component.full_key(field.key),
        value: if field.kind.is_secret() { HIDDEN.to_owned() } else { format!("{text:?}") },
        origin: format!("environment variable {name}"),
        reason: reason.to_owned(),
    };
    Ok(Some(match field.kind {
        Kind::Text | Kind::Secret | Kind::Size | Kind::Duration => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(go_bool(text).ok_or_else(|| fail("write true or false"))?),
        Kind::Whole => Value::from(whole(text).ok_or_else(|| fail("write a whole number"))?),
        Kind::Fraction => Value::from(text.parse::<f64>().map_err(|_| fail("write a number"))?),
        Kind::Addresses | Kind::Texts => Value::from(list(text)),
        Kind::TextMap | Kind::Credentials => {
            let map = pairs(text).ok_or_else(|| fail("write it as key:value,key:value"))?;
            Value::Object(map.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
        }
        Kind::Headers => {
            let map = pairs(text).ok_or_else(|| fail("write it as name:value,name:value"))?;
            Value::Object(map.into_iter().map(|(key, value)| (key, Value::from(vec![value]))).collect())
        }
        Kind::Ignored => return Ok(None),
    }))
}

/// A boolean as Go's `ParseBool` takes it.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    (value >= 0).then_some(sign * value)
}

fn list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|part| part.trim().to_owned()).collect() }
}

fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    list(text)
        .into_iter()
        .map(|pair| {
            let (key, value) = pair.split_once(':')?;
            (!value.contains(':')).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::{CLUSTER, CRDT, RESTAPI};
    use super::*;

    #[test]
    fn names_follow_the_section_and_the_key_without_underscores() {
        let name = |component: &Component, key: &str| variable_name(component, component.field(key).unwrap());
        assert_eq!(name(&CLUSTER, "replication_factor_min"), "CLUSTER_REPLICATIONFACTORMIN");
        assert_eq!(name(&CLUSTER, "connection_manager.high_water"), "CLUSTER_CONNECTIONMANAGER_HIGHWATER");
        assert_eq!(name(&CRDT, "trusted_peers"), "CLUSTER_CRDT_TRUSTEDPEERS");
        assert_eq!(name(&RESTAPI, "http_listen_multiaddress"), "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS");
    }

    #[test]
    fn values_are_read_as_the_original_reads_them() {
        assert_eq!(whole("0x10"), Some(16));
        assert_eq!(whole("-1"), Some(-1));
        assert_eq!(whole("--1"), None);
        assert_eq!(whole("1.5"), None);
        assert_eq!(go_bool("T"), Some(true));
        assert_eq!(go_bool("yes"), None);
        assert!(list("").is_empty());
        assert_eq!(list("a, b"), ["a", "b"]);
        assert_eq!(pairs("region:us,group:a").unwrap().len(), 2);
        assert_eq!(pairs("a:b:c"), None);
        assert_eq!(pairs("a"), None);
    }
}
