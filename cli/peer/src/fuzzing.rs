//! What the fuzzers call: files and texts of users, and what must hold of whatever becomes of them.

use cluster_net::Identity;
use cluster_types::Multiaddr;
use serde_json::{Map, Value};

use crate::config::{Config, ConfigError, ConfigFolder, Loaded};
use crate::state::{ImportOptions, read_all};

/// The least length of a secret that is looked for in what is shown: shorter ones may stand there by chance.
const TELLING: usize = 12;

/// A `service.json`: nothing that is said of it shows a secret that stands in it.
pub fn config(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
    let secrets = secrets(&file);
    let folder = ConfigFolder::new("fuzzed");
    let loaded: Result<Loaded, ConfigError> = crate::config::load_file(file, &folder);
    let shown = match &loaded {
        Ok(Loaded { config, remarks }) => format!("{:?} {}", config as &Config, remarks.join(" ")),
        Err(error) => format!("{error:?} {}", cluster_types::ErrorChain(error)),
    };
    for secret in secrets {
        assert!(!shown.contains(&secret), "{secret:?} is shown in {shown}");
    }
}

/// The secret texts of a file, where a section has them.
fn secrets(file: &Map<String, Value>) -> Vec<String> {
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(file.get(*first)?, |value, key| value.get(key)).cloned()
    };
    let mut texts = Vec::new();
    for path in [&["cluster", "secret"][..], &["cluster", "private_key"], &["api", "restapi", "private_key"]] {
        texts.extend(at(path).and_then(|value| value.as_str().map(str::to_owned)));
    }
    if let Some(Value::Object(users)) = at(&["api", "restapi", "basic_auth_credentials"]) {
        texts.extend(users.values().filter_map(|value| value.as_str().map(str::to_owned)));
    }
    texts.retain(|text| text.len() >= TELLING);
    texts
}

/// An `identity.json`: an identity that loads is printed as itself, and shows its key to nobody.
pub fn identity(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<Value>(data) else { return };
    let text = |key| file.get(key).and_then(Value::as_str);
    let (Some(id), Some(key)) = (text("id"), text("private_key")) else { return };
    let identity = match Identity::from_parts(id, key) {
        Ok(identity) => identity,
        Err(error) => {
            assert!(key.len() < TELLING || !format!("{error:?} {error}").contains(key), "the key is shown");
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
