//! The first stage: the file as JSON, the overrides of the environment above it, the table's defaults below it.
//!
//! A `Reader` looks at one component and hands out values of the right kind, or an error that names the key, the
//! value and where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_types::{GoDuration, Multiaddr, parse_address};
use serde_json::{Map, Value};

use super::environment::{Environment, NotText, not_text, parse_variable, variable_name};
use super::error::ConfigError;
use super::table::{Absence, CLUSTER, COMPONENTS, Component, DATASTORES, Field, Kind, Nothing, OPAQUE_SECTIONS};
use super::value::{ByteSize, HIDDEN, Secret};

/// A configuration before its values are checked.
pub(super) struct Document {
    path: PathBuf,
    file: Map<String, Value>,
    overrides: BTreeMap<String, Override>,
    /// Variables that are set and have no meaning here.
    meaningless: Vec<String>,
    /// What the reader of the log should be told about how this document came to be.
    notes: Vec<String>,
}

/// Only where it stands: the values may be secrets.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the environment says about a key.
struct Override {
    variable: String,
    value: Value,
}

/// A value and where it was written.
struct Found {
    value: Value,
    origin: String,
}

impl Document {
    /// A document of what stands in the file at `path`.
    pub(super) fn new(path: &Path, file: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), file, overrides: BTreeMap::new(), meaningless: Vec::new(), notes: Vec::new() }
    }

    /// Lets the environment override the file.
    pub(super) fn apply(&mut self, environment: &dyn Environment) -> Result<(), ConfigError> {
        for component in COMPONENTS {
            for field in component.fields {
                let variable = variable_name(component, field);
                let text = match environment.variable(&variable) {
                    Some(Ok(text)) => text,
                    Some(Err(NotText)) => return Err(not_text(component, field, &variable)),
                    None => continue,
                };
                if field.kind == Kind::Ignored {
                    if !says_the_default(field, &text) {
                        self.meaningless.push(variable);
                    }
                    continue;
                }
                if let Some(value) = parse_variable(component, field, &variable, &text)? {
                    self.overrides.insert(component.full_key(field.key), Override { variable, value });
                }
            }
        }
        Ok(())
    }

    /// Makes it the configuration of a peer that only follows: no API but the REST API, on a unix socket unless the
    /// environment says otherwise, and nothing is told to telemetry.
    pub(super) fn follow(&mut self, socket: &Path) {
        let cluster = self.file.entry("cluster").or_insert_with(|| Value::Object(Map::new()));
        if let Some(cluster) = cluster.as_object_mut() {
            cluster.insert("follower_mode".to_owned(), Value::Bool(true));
        }
        self.overrides.remove(&CLUSTER.full_key("follower_mode"));
        let address = format!("/unix/{}", socket.display().to_string().trim_start_matches('/'));
        let rest = serde_json::json!({ "restapi": { "http_listen_multiaddress": address } });
        self.file.insert("api".to_owned(), rest);
        self.file.remove("observations");
        self.overrides.retain(|key, _| !key.starts_with("observations."));
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file has this component.
    pub(super) fn has(&self, component: &Component) -> bool {
        self.component(component).is_some()
    }

    /// Whether the environment says something about a key.
    pub(super) fn is_overridden(&self, component: &Component, key: &str) -> bool {
        self.overrides.contains_key(&component.full_key(key))
    }

    /// The datastore sections of the file, known ones only.
    pub(super) fn datastores(&self) -> Vec<&'static str> {
        let section = self.file.get("datastore").and_then(Value::as_object);
        let names = DATASTORES.into_iter().map(|engine| engine.name);
        names.filter(|name| section.is_some_and(|section| section.contains_key(*name))).collect()
    }

    /// The values of a component.
    pub(super) fn reader(&self, component: &'static Component) -> Reader<'_> {
        Reader { document: self, component }
    }

    /// Checks that what must be an object is one.
    pub(super) fn check_shape(&self) -> Result<(), ConfigError> {
        let not_an_object = |key: &str| ConfigError::NotAnObject { key: key.to_owned(), path: self.path.clone() };
        for component in COMPONENTS {
            let Some(section) = self.file.get(component.section).filter(|section| !section.is_null()) else { continue };
            let section = section.as_object().ok_or_else(|| not_an_object(component.section))?;
            if component.name.is_empty() {
                continue;
            }
            if section.get(component.name).is_some_and(|value| !value.is_object() && !value.is_null()) {
                return Err(not_an_object(&component.path()));
            }
        }
        for component in COMPONENTS {
            let Some(values) = self.component(component) else { continue };
            for field in component.fields {
                let parents = field.key.rmatch_indices('.').map(|(end, _)| &field.key[..end]);
                for parent in parents {
                    if lookup(values, parent).is_some_and(|value| !value.is_object() && !value.is_null()) {
                        return Err(not_an_object(&component.full_key(parent)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Keys of the file that nobody knows.
    pub(super) fn unknown_keys(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        for (section, content) in &self.file {
            if OPAQUE_SECTIONS.contains(&section.as_str()) {
                continue;
            }
            let known: Vec<&&Component> = COMPONENTS.iter().filter(|known| known.section == section).collect();
            if let Some(whole) = known.iter().find(|component| component.name.is_empty()) {
                collect_unknown(whole, "", content, &mut unknown);
            } else if known.is_empty() {
                unknown.push(section.clone());
            } else {
                for (name, values) in content.as_object().into_iter().flatten() {
                    match known.iter().find(|component| component.name == name) {
                        Some(component) => collect_unknown(component, "", values, &mut unknown),
                        None => unknown.push(format!("{section}.{name}")),
                    }
                }
            }
        }
        unknown
    }

    /// Keys of the file and of the environment that say something else than the default and have no effect yet.
    pub(super) fn unserved_keys(&self) -> Vec<String> {
        let keys = COMPONENTS.into_iter().flat_map(|component| {
            let unserved = component.fields.iter().filter(|field| !field.served);
            unserved.filter(|field| self.is_set(component, field)).map(|field| component.full_key(field.key))
        });
        keys.collect()
    }

    /// Keys of the file and variables that have no meaning here, and say something else than the original's default.
    pub(super) fn meaningless_keys(&self) -> Vec<String> {
        let keys = COMPONENTS.into_iter().flat_map(|component| {
            let ignored =
                component.fields.iter().filter(|field| field.kind == Kind::Ignored && field.default != "null");
            ignored.filter(|field| self.is_set(component, field)).map(|field| component.full_key(field.key))
        });
        keys.chain(self.meaningless.iter().cloned()).collect()
    }

    /// Keys whose written value stands for the default because it cannot be used.
    pub(super) fn replaced_keys(&self) -> Vec<String> {
        let mut replaced = Vec::new();
        for component in COMPONENTS {
            for field in component.fields.iter().filter(|field| field.nothing == Nothing::DefaultWithRemark) {
                let key = component.full_key(field.key);
                let of_environment = self.overrides.get(&key).map(|found| &found.value);
                let of_file = self.component(component).and_then(|values| lookup(values, field.key));
                let written = [of_environment, of_file].into_iter().flatten();
                let unusable = written.filter(|value| !value.is_null() && is_missing(field, value));
                replaced.extend(unusable.map(|value| format!("{key} = {value} (here {})", field.default)));
            }
        }
        replaced
    }

    /// Adds a line for the reader of the log.
    pub(super) fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// What [`Self::note`] added.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether somebody wrote a value that is not the default.
    fn is_set(&self, component: &Component, field: &Field) -> bool {
        let written = self.overrides.get(&component.full_key(field.key)).map(|found| &found.value);
        let written = written.or_else(|| lookup(self.component(component)?, field.key));
        written.is_some_and(|value| !is_missing(field, value) && comparable(value) != comparable(&default_of(field)))
    }

    fn component(&self, component: &Component) -> Option<&Map<String, Value>> {
        let section = self.file.get(component.section)?.as_object()?;
        if component.name.is_empty() {
            return Some(section);
        }
        match section.get(component.name)? {
            Value::Object(values) => Some(values),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    fn find(&self, component: &Component, field: &Field) -> Result<Found, ConfigError> {
        let key = component.full_key(field.key);
        if let Some(found) = self.overrides.get(&key).filter(|found| !is_missing(field, &found.value)) {
            let origin = format!("environment variable {}", found.variable);
            return Ok(Found { value: found.value.clone(), origin });
        }
        let default = |json: &str| Found {
            value: serde_json::from_str(json).expect("the defaults of the table are JSON, as a test shows"),
            origin: format!("missing in {}", self.path.display()),
        };
        let Some(values) = self.component(component) else { return Ok(default(field.default)) };
        if let Some(value) = lookup(values, field.key).filter(|value| !is_missing(field, value)) {
            return Ok(Found { value: value.clone(), origin: self.path.display().to_string() });
        }
        // Inside an object that is missing altogether, the default holds; inside one that is there, the absence counts.
        let parent_is_there = match field.key.rsplit_once('.') {
            Some((parent, _)) => lookup(values, parent).is_some_and(|value| !value.is_null()),
            None => true,
        };
        match field.absence {
            Absence::Json(json) if parent_is_there => Ok(default(json)),
            Absence::Error(message) if parent_is_there => {
                Err(ConfigError::Undefined { message: message.to_owned(), path: self.path.clone() })
            }
            Absence::Default | Absence::Json(_) | Absence::Error(_) => Ok(default(field.default)),
        }
    }
}

fn default_of(field: &Field) -> Value {
    serde_json::from_str(field.default).expect("the defaults of the table are JSON, as a test shows")
}

/// A value with one spelling for what may be written in several ways: durations, and lists of one.
fn comparable(value: &Value) -> Value {
    if let Value::Array(items) = value {
        match items.as_slice() {
            [] => return Value::from(""),
            [only] => return comparable(only),
            [_, _, ..] => {}
        }
    }
    parse_duration(value).map_or_else(|| value.clone(), |duration| Value::from(duration.as_secs_f64()))
}

/// Whether a value stands for none: null, or an empty text where a duration should be.
fn is_missing(field: &Field, value: &Value) -> bool {
    value.is_null()
        || (field.kind == Kind::Duration && value.as_str() == Some(""))
        || (field.nothing != Nothing::Itself && is_nothing(value))
        || (field.nothing == Nothing::DefaultWithRemark
            && field.kind == Kind::Duration
            && parse_duration(value).is_none_or(|duration| duration.is_zero()))
        // Of the data stores' options the original takes nothing for the default.
        || (field.kind == Kind::Ignored && is_nothing(value))
}

/// An empty text or list, 0, or false.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// Whether a variable of a key without meaning says what holds anyway.
fn says_the_default(field: &Field, text: &str) -> bool {
    let default = default_of(field);
    default.is_null() || text.is_empty() || text == default.as_str().unwrap_or(field.default)
}

fn lookup<'a>(values: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((first, rest)) => lookup(values.get(first)?.as_object()?, rest),
        None => values.get(key),
    }
}

fn collect_unknown(component: &Component, prefix: &str, values: &Value, unknown: &mut Vec<String>) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let inner = format!("{key}.");
        if component.field(&key).is_some() {
            continue;
        }
        if component.fields.iter().any(|field| field.key.starts_with(&inner)) {
            collect_unknown(component, &key, value, unknown);
        } else {
            unknown.push(component.full_key(&key));
        }
    }
}

/// The values of one component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    document: &'a Document,
    component: &'static Component,
}

impl Reader<'_> {
    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<String, ConfigError> {
        self.read(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// A text that must not be printed.
    pub(super) fn secret(&self, key: &str) -> Result<Secret, ConfigError> {
        self.text(key).map(Secret::new)
    }

    /// true or false.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A whole number that fits where it goes.
    pub(super) fn whole<T: TryFrom<i64>>(&self, key: &str) -> Result<T, ConfigError> {
        self.read(key, "a whole number in range", |value| T::try_from(value.as_i64()?).ok())
    }

    /// A whole number above zero.
    pub(super) fn positive<T: TryFrom<i64>>(&self, key: &str) -> Result<T, ConfigError> {
        self.read(key, "a whole number above 0", |value| T::try_from(value.as_i64().filter(|n| *n > 0)?).ok())
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<f64, ConfigError> {
        self.read(key, "a number", Value::as_f64)
    }

    /// A duration, which may be nothing.
    pub(super) fn duration(&self, key: &str) -> Result<Duration, ConfigError> {
        self.read(key, "a duration like 1h30m, 15s or 300ms", parse_duration)
    }

    /// A duration above nothing.
    pub(super) fn interval(&self, key: &str) -> Result<Duration, ConfigError> {
        self.read(key, "a duration above 0, like 1h30m, 15s or 300ms", |value| {
            parse_duration(value).filter(|duration| !duration.is_zero())
        })
    }

    /// Multiaddresses: one text or a list of them.
    pub(super) fn addresses(&self, key: &str) -> Result<Vec<Multiaddr>, ConfigError> {
        const EXPECTED: &str = "expected one multiaddress like /ip4/127.0.0.1/tcp/9096, or a list of them";
        let found = self.find(key)?;
        let texts: &[Value] = match &found.value {
            Value::String(one) if one.is_empty() => &[],
            Value::Array(many) => many,
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                std::slice::from_ref(one)
            }
        };
        let parsed = |one: &Value| {
            let address = one.as_str().and_then(|text| parse_address(text).ok());
            address.ok_or_else(|| self.bad_value(key, &found, format!("{EXPECTED}; {one} is none")))
        };
        texts.iter().map(parsed).collect()
    }

    /// Exactly one multiaddress.
    pub(super) fn address(&self, key: &str) -> Result<Multiaddr, ConfigError> {
        let mut all = self.addresses(key)?;
        match all.pop() {
            Some(only) if all.is_empty() => Ok(only),
            Some(_) | None => Err(self.refuse(key, "give exactly one multiaddress")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        self.read(key, "a list of texts", texts)
    }

    /// Names and texts.
    pub(super) fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        self.read(key, "an object of texts", |value| {
            value.as_object()?.iter().map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
        })
    }

    /// Users and passwords, unless there are none.
    pub(super) fn credentials(&self, key: &str) -> Result<Option<BTreeMap<String, Secret>>, ConfigError> {
        self.read(key, "null, or an object of user names and passwords with at least one", |value| {
            if value.is_null() {
                return Some(None);
            }
            let users = value.as_object().filter(|users| !users.is_empty())?;
            users
                .iter()
                .map(|(user, word)| Some((user.clone(), Secret::new(word.as_str()?))))
                .collect::<Option<_>>()
                .map(Some)
        })
    }

    /// Header names, each with values.
    pub(super) fn headers(&self, key: &str) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
        self.read(key, "an object of header names, each with a list of values", |value| {
            value.as_object()?.iter().map(|(name, values)| Some((name.clone(), texts(values)?))).collect()
        })
    }

    /// A number of bytes.
    pub(super) fn size(&self, key: &str) -> Result<ByteSize, ConfigError> {
        self.read(key, "a size like 10GB, 512MiB or 1048576", |value| match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_u64().map(ByteSize),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// The error that refuses the value of a key.
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        match self.find(key) {
            Ok(found) => self.bad_value(key, &found, reason.into()),
            Err(error) => error,
        }
    }

    fn read<T>(&self, key: &str, expected: &str, convert: impl FnOnce(&Value) -> Option<T>) -> Result<T, ConfigError> {
        let found = self.find(key)?;
        convert(&found.value).ok_or_else(|| self.bad_value(key, &found, format!("expected {expected}")))
    }

    fn find(&self, key: &str) -> Result<Found, ConfigError> {
        self.document.find(self.component, self.known(key))
    }

    fn known(&self, key: &str) -> &'static Field {
        self.component.field(key).expect("only keys of the table are read, as the test of the defaults shows")
    }

    fn bad_value(&self, key: &str, found: &Found, reason: String) -> ConfigError {
        let value = if self.known(key).kind.is_secret() { HIDDEN.to_owned() } else { found.value.to_string() };
        ConfigError::BadValue { key: self.component.full_key(key), value, origin: found.origin.clone(), reason }
    }
}

fn parse_duration(value: &Value) -> Option<Duration> {
    value.as_str()?.parse::<GoDuration>().ok().map(|duration| duration.0)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}
