//! JSON as the original writes it: compact, a line feed after each document, and `<`, `>`, `&` escaped in strings.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Escapes what a browser could take for markup, and the two line separators that JavaScript does not allow.
struct HtmlSafe;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(place) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (safe, tail) = rest.split_at(place);
            writer.write_all(safe.as_bytes())?;
            let mut letters = tail.chars();
            if let Some(letter) = letters.next() {
                write!(writer, "\\u{:04x}", u32::from(letter))?;
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Appends one document and its line feed.
pub(crate) fn write_line<T: Serialize + ?Sized>(into: &mut Vec<u8>, value: &T) -> Result<(), serde_json::Error> {
    write(into, value)?;
    into.push(b'\n');
    Ok(())
}

/// Appends one document.
pub(crate) fn write<T: Serialize + ?Sized>(into: &mut Vec<u8>, value: &T) -> Result<(), serde_json::Error> {
    value.serialize(&mut Serializer::with_formatter(into, HtmlSafe))
}

/// One document and its line feed.
pub(crate) fn line<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut into = Vec::new();
    write_line(&mut into, value)?;
    Ok(into.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_in_values_and_keys() {
        let value = serde_json::json!({"<k>": "a<b>&c\u{2028}\"é\n"});
        let text = line(&value).unwrap();
        assert_eq!(&text[..], "{\"\\u003ck\\u003e\":\"a\\u003cb\\u003e\\u0026c\\u2028\\\"é\\n\"}\n".as_bytes());
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), value);
    }
}
