//! One pin of an export: read as the original's files have it, and changed as the command line asks.

use cluster_core::consensus::MAX_PIN_BYTES;
use cluster_core::consensus::operation::encode_pin;
use cluster_types::{PeerId, Pin, PinMode, ReplicationFactor};
use serde_json::{Map, Value};

/// What `state import` puts in the place of what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Least number of copies of every pin; below 1: as the file says.
    pub replication_min: i32,
    /// Wanted number of copies of every pin; below 1: as the file says.
    pub replication_max: i32,
    /// Who holds every pin; empty: as the file says.
    pub allocations: Vec<PeerId>,
}

/// Why an object is no pin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Lines of the object before the one that is wrong.
    pub(crate) lines: u64,
    pub(crate) reason: String,
}

impl Refusal {
    fn new(reason: impl ToString) -> Self {
        Self { lines: 0, reason: reason.to_string() }
    }
}

/// Reads one object of an export. What is absent or null has its default; without `max_depth` the `mode` decides, and
/// without both the pin is recursive. An absent `type`, and the name that the original gives to one that it read
/// nothing for, mean an ordinary pin.
pub(crate) fn read(bytes: &[u8], options: &ImportOptions) -> Result<Pin, Refusal> {
    let fields: Result<Map<String, Value>, _> = serde_json::from_slice(bytes);
    let mut fields = fields.map_err(|error| Refusal {
        lines: u64::try_from(error.line()).unwrap_or(1).saturating_sub(1),
        reason: without_place(&error),
    })?;
    fields.retain(|_name, value| !value.is_null());
    if let Some(mode) = fields.get_mut("mode") {
        let name = mode.as_str().ok_or_else(|| Refusal::new("mode is not a text"))?;
        *mode = PinMode::from_lossy(name).as_str().into();
    }
    if fields.get("type").and_then(Value::as_str).is_some_and(|kind| kind.is_empty() || kind == "bad-type") {
        fields.remove("type");
    }
    let has_depth = fields.contains_key("max_depth");
    let mut pin: Pin = serde_json::from_value(Value::Object(fields)).map_err(Refusal::new)?;
    if !has_depth {
        pin.max_depth = pin.options.mode.depth();
    }
    change(&mut pin, options);
    check(&pin)?;
    Ok(pin)
}

fn change(pin: &mut Pin, options: &ImportOptions) {
    pin.options.user_allocations.clear();
    if options.replication_min > 0 {
        pin.options.replication_factor_min = options.replication_min;
    }
    if options.replication_max > 0 {
        pin.options.replication_factor_max = options.replication_max;
    }
    if !options.allocations.is_empty() {
        pin.allocations.clone_from(&options.allocations);
    }
}

fn check(pin: &Pin) -> Result<(), Refusal> {
    let (min, max) = (pin.options.replication_factor_min, pin.options.replication_factor_max);
    if min != 0 && max != 0 {
        ReplicationFactor::checked(min, max).map_err(Refusal::new)?;
    }
    let bytes = encode_pin(pin).len();
    if bytes > MAX_PIN_BYTES {
        return Err(Refusal::new(format_args!("the pin takes {bytes} bytes; at most {MAX_PIN_BYTES} are kept")));
    }
    Ok(())
}

/// What a parser says, without the place inside of the object.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use cluster_types::{PinDepth, PinType};

    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

    fn pin(fields: &str) -> Pin {
        try_pin(fields, &ImportOptions::default()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}"))
    }

    fn try_pin(fields: &str, options: &ImportOptions) -> Result<Pin, Refusal> {
        read(format!("{{\"cid\":\"{CID}\"{fields}}}").as_bytes(), options)
    }

    #[test]
    fn what_is_missing_makes_a_recursive_pin() {
        let bare = pin("");
        assert_eq!((bare.max_depth, bare.kind), (PinDepth::RECURSIVE, PinType::Data));
        assert_eq!((bare.options.replication_factor_min, bare.options.replication_factor_max), (0, 0));
        let nulls = r#","name":null,"type":null,"max_depth":null,"mode":null,"allocations":null,"expire_at":null"#;
        assert_eq!(pin(nulls), bare);
        assert_eq!(pin(r#","type":"bad-type","mode":"","shade":{"of":["blue"]}"#), bare);
    }

    #[test]
    fn the_depth_decides_and_without_it_the_mode() {
        for (fields, depth) in [
            (r#","mode":"direct""#, 0),
            (r#","mode":"direct","max_depth":-1"#, -1),
            (r#","mode":"recursive","max_depth":0"#, 0),
            (r#","max_depth":1,"type":"shard-pin""#, 1),
        ] {
            assert_eq!(pin(fields).max_depth, PinDepth(depth), "{fields}");
        }
    }

    #[test]
    fn the_command_line_replaces_what_it_names() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let other = "QmaFyXjZUNaUwYF8rBtbc7foEJ46aD52AKSvkMqPnBYnnR";
        let fields = format!(
            r#","replication_factor_min":1,"replication_factor_max":4,"allocations":["{other}"],"user_allocations":["{other}"]"#
        );
        let kept = pin(&fields);
        assert_eq!((kept.options.replication_factor_min, kept.options.replication_factor_max), (1, 4));
        assert!(kept.options.user_allocations.is_empty(), "they are not kept");
        assert_eq!(kept.allocations.len(), 1);
        let mut options = ImportOptions { replication_min: 2, replication_max: -1, allocations: Vec::new() };
        let changed = try_pin(&fields, &options).unwrap();
        assert_eq!((changed.options.replication_factor_min, changed.options.replication_factor_max), (2, 4));
        assert_eq!(changed.allocations, kept.allocations);
        options.allocations = vec![peer.parse().unwrap()];
        assert_eq!(try_pin(&fields, &options).unwrap().allocations, options.allocations);
        options.replication_min = 5;
        assert!(try_pin(&fields, &options).is_err(), "at least 5 and at most 4");
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let wrong = [
            r#"{"name":"x"}"#.to_owned(),
            r#"{"cid":null}"#.to_owned(),
            r#"{"cid":"nonsense"}"#.to_owned(),
            format!(r#"{{"cid":"{CID}","type":"cake"}}"#),
            format!(r#"{{"cid":"{CID}","mode":7}}"#),
            format!(r#"{{"cid":"{CID}","max_depth":"deep"}}"#),
            format!(r#"{{"cid":"{CID}","allocations":["me"]}}"#),
            format!(r#"{{"cid":"{CID}","name":"{}"}}"#, "x".repeat(MAX_PIN_BYTES)),
            "{]".to_owned(),
        ];
        for text in wrong {
            let refusal = read(text.as_bytes(), &ImportOptions::default());
            assert!(refusal.is_err(), "{text}");
        }
        let refusal = read(b"{\n\"cid\":\n\n,}", &ImportOptions::default()).unwrap_err();
        assert_eq!(refusal.lines, 3, "{refusal:?}");
        assert!(!refusal.reason.contains("line"), "{refusal:?}");
    }
}
