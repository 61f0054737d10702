//! What the fuzzers call: files and texts of users, and what must hold of whatever becomes of them.

use cluster_net::Identity;
use cluster_types::Multiaddr;
use serde_json::Value;

use crate::config::{Config, ConfigError, ConfigFolder, Loaded};
use crate::state::{ImportOptions, read_all};

/// The least length of a secret that is looked for in what is shown: shorter ones may stand there by chance.
const TELLING: usize = 12;

/// A `service.json`: nothing that is said of it shows a secret that stands in it.
pub fn config(data: &[u8]) {
    let Ok(mut file) = serde_json::from_slice::<Value>(data) else { return };
    let Some(shown) = shown(&file) else { return };
    let secrets = take_secrets(&mut file);
    for secret in secrets.into_iter().filter(|secret| shown.contains(secret)) {
        // Fuzzers copy: the same text may stand where it is shown with reason, and be a default besides.
        let is_shown_anyway = self::shown(&file).is_some_and(|shown| shown.contains(&secret));
        assert!(is_shown_anyway || stands_in(&file, &secret), "{secret:?} is shown in {shown}");
    }
}

/// All that is said of a file with a configuration.
fn shown(file: &Value) -> Option<String> {
    let file = file.as_object()?.clone();
    let loaded: Result<Loaded, ConfigError> = crate::config::load_file(file, &ConfigFolder::new("fuzzed"));
    Some(match &loaded {
        Ok(Loaded { config, remarks }) => format!("{:?} {}", config as &Config, remarks.join(" ")),
        Err(error) => format!("{error:?} {}", cluster_types::ErrorChain(error)),
    })
}

/// Takes the secret texts out of a file, and leaves others in their place.
fn take_secrets(file: &mut Value) -> Vec<String> {
    let mut texts = Vec::new();
    let mut take = |place: Option<&mut Value>, other: &str| {
        if let Some(Value::String(text)) = place {
            texts.push(std::mem::replace(text, other.to_owned()));
        }
    };
    take(file.pointer_mut("/cluster/secret"), &"00".repeat(32));
    take(file.pointer_mut("/cluster/private_key"), "");
    take(file.pointer_mut("/api/restapi/private_key"), "");
    if let Some(Value::Object(users)) = file.pointer_mut("/api/restapi/basic_auth_credentials") {
        users.values_mut().for_each(|password| take(Some(password), "x"));
    }
    texts.retain(|text| text.len() >= TELLING);
    texts
}

/// Whether a text stands in a value, or in the name of one.
fn stands_in(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found.contains(text),
        Value::Array(values) => values.iter().any(|value| stands_in(value, text)),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains(text) || stands_in(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An `identity.json`: an identity that loads is printed as itself, and shows its key to nobody.
pub fn identity(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<Value>(data) else { return };
    let text = |key| file.get(key).and_then(Value::as_str);
    let (Some(id), Some(key)) = (text("id"), text("private_key")) else { return };
    let identity = match Identity::from_parts(id, key) {
        Ok(identity) => identity,
        Err(error) => {
            // An id may be shown, and fuzzers make one of the key.
            let is_telling = key.len() >= TELLING && !id.contains(key);
            assert!(!is_telling || !format!("{error:?} {error}").contains(key), "the key is shown");
            return;
        }
    };
    let again = Identity::from_parts(&identity.peer().to_string(), identity.reveal_private_key());
    assert_eq!(again.expect("its own parts belong together").peer(), identity.peer());
    assert!(!format!("{identity:?}").contains(identity.reveal_private_key()), "the key is shown");
}

/// A multiaddress: what is parsed is printed, and parsed to the same.
pub fn multiaddr(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(address) = text.parse::<Multiaddr>() else { return };
    let printed = address.to_string();
    assert_eq!(printed.parse::<Multiaddr>().ok(), Some(address), "{text:?} is printed as {printed:?}");
}

/// An export that is to be imported: every pin that is read is written as an export writes it, and read as the same.
pub fn state_import(data: &[u8]) {
    let options = ImportOptions::default();
    for pin in read_all(data, &options) {
        let line = serde_json::to_vec(&pin).expect("a pin can be written");
        assert_eq!(read_all(&line, &options), [pin]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cluster_core::testing::mutate::ShortRun;

    #[expect(clippy::print_stdout, reason = "a run that fails can be replayed")]
    fn run(name: &str, target: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(name);
        let run = ShortRun::new(rand::random());
        println!("{run:?}");
        run.over(&corpus, target);
    }

    #[test]
    fn configurations() {
        run("config", super::config);
    }

    #[test]
    fn identities() {
        run("identity", super::identity);
    }

    #[test]
    fn multiaddresses() {
        run("multiaddr", super::multiaddr);
    }

    #[test]
    fn exports() {
        run("state-import", super::state_import);
    }
}
