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
    String::from_utf8(bytes).map_err(|error| Failure::local("writing JSON", &error))
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
}
