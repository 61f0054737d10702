//! Answers for programs: JSON, indented by four spaces.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::failure::Failure;

/// One document with a line feed at its end.
pub(crate) fn document<T: Serialize + ?Sized>(item: &T) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    item.serialize(&mut serializer).map_err(|error| Failure::local("writing JSON", &error))?;
    bytes.push(b'\n');
    let text = String::from_utf8(bytes).map_err(|error| Failure::local("writing JSON", &error))?;
    Ok(escaped(text))
}

/// As the original writes JSON: what a browser could take for markup is escaped. Such letters stand inside of strings
/// only, so the text needs no second look at its structure.
fn escaped(text: String) -> String {
    const ESCAPED: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    if !text.contains(ESCAPED) {
        return text;
    }
    let letter = |letter: char| {
        if ESCAPED.contains(&letter) { format!("\\u{:04x}", u32::from(letter)) } else { letter.to_string() }
    };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_indented_by_four_spaces() {
        let item = serde_json::json!({"a": [1, {"b": []}]});
        let text = "{\n    \"a\": [\n        1,\n        {\n            \"b\": []\n        }\n    ]\n}\n";
        assert_eq!(document(&item).unwrap(), text);
    }

    #[test]
    fn markup_is_escaped_and_reads_back() {
        let item = serde_json::json!({"<k>": "a&b\u{2028}"});
        let text = document(&item).unwrap();
        assert_eq!(text, "{\n    \"\\u003ck\\u003e\": \"a\\u0026b\\u2028\"\n}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), item);
    }
}
