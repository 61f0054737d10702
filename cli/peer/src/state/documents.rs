//! Cuts an input into JSON objects, one after the other, whatever is between them and however they are broken into lines.
//!
//! **Invariant:** memory is bounded by [`MAX_DOCUMENT`], whatever the input is.

use std::io::{self, BufRead};

/// The longest object, in bytes: a pin of the largest size kept, with all its characters escaped.
pub(crate) const MAX_DOCUMENT: usize = 1 << 20;
/// The deepest nesting; a pin has three levels.
pub(crate) const MAX_DEPTH: usize = 32;

/// Why there is no next object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// Something else than an object begins here.
    #[error("expected the {{ of a pin, found {found:?}")]
    NotAnObject {
        /// Its first character.
        found: char,
    },
    /// It is too long.
    #[error("the object is longer than {MAX_DOCUMENT} bytes")]
    TooLong,
    /// It is nested too deeply.
    #[error("the object is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The input ends inside of it.
    #[error("the input ends inside of the object that begins here")]
    CutOff,
    /// The input cannot be read.
    #[error("the input cannot be read")]
    Unreadable(#[source] io::Error),
}

/// The objects of an input.
pub(crate) struct Documents<R> {
    input: R,
    buffer: Vec<u8>,
    /// The line that is being read, from 1.
    line: u64,
    /// The line where the last object, or what stands in its place, begins.
    begins: u64,
}

/// Where in an object the reader is.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes the next byte in; says whether it ends the object.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                // Whether they match is for the parser to say.
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl<R: BufRead> Documents<R> {
    /// Reads from `input`.
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), line: 1, begins: 1 }
    }

    /// The line where the last object, or what was found in its place, begins.
    pub(crate) fn begins_at(&self) -> u64 {
        self.begins
    }

    /// The next object's bytes; `None` at the end of the input.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, CutError> {
        self.buffer.clear();
        let Some(first) = self.skip_space()? else { return Ok(None) };
        if first != b'{' {
            let found = if first.is_ascii() { char::from(first) } else { char::REPLACEMENT_CHARACTER };
            return Err(CutError::NotAnObject { found });
        }
        let mut nesting = Nesting::default();
        loop {
            let piece = fill(&mut self.input)?;
            if piece.is_empty() {
                return Err(CutError::CutOff);
            }
            let mut end = None;
            for (place, byte) in piece.iter().enumerate() {
                self.line += u64::from(*byte == b'\n');
                if nesting.ends_with(*byte) {
                    end = Some(place + 1);
                    break;
                }
                if nesting.depth > MAX_DEPTH {
                    return Err(CutError::TooDeep);
                }
            }
            let taken = end.unwrap_or(piece.len());
            if self.buffer.len() + taken > MAX_DOCUMENT {
                return Err(CutError::TooLong);
            }
            self.buffer.extend_from_slice(&piece[..taken]);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(Some(&self.buffer));
            }
        }
    }

    /// Skips to the next byte that is no white space, and shows it.
    fn skip_space(&mut self) -> Result<Option<u8>, CutError> {
        loop {
            let piece = fill(&mut self.input)?;
            let space = piece.iter().take_while(|byte| byte.is_ascii_whitespace());
            let (mut skipped, mut lines) = (0, 0);
            for byte in space {
                skipped += 1;
                lines += u64::from(*byte == b'\n');
            }
            let (next, at_end) = (piece.get(skipped).copied(), piece.is_empty());
            self.input.consume(skipped);
            self.line += lines;
            self.begins = self.line;
            if next.is_some() || at_end {
                return Ok(next);
            }
        }
    }
}

fn fill<R: BufRead>(input: &mut R) -> Result<&[u8], CutError> {
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CutError::Unreadable(error)),
        }
    }
    input.fill_buf().map_err(CutError::Unreadable)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// What an input was cut into.
    #[derive(Debug, Default)]
    struct Cut {
        /// The objects, each with its line.
        found: Vec<(u64, String)>,
        /// Why there are no more, and the line.
        error: Option<(u64, CutError)>,
    }

    fn cut(text: &[u8], buffer: usize) -> Cut {
        let mut documents = Documents::new(BufReader::with_capacity(buffer, text));
        let mut cut = Cut::default();
        loop {
            match documents.next().map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())) {
                Ok(Some(text)) => cut.found.push((documents.begins_at(), text)),
                Ok(None) => return cut,
                Err(error) => {
                    cut.error = Some((documents.begins_at(), error));
                    return cut;
                }
            }
        }
    }

    #[test]
    fn objects_are_found_whatever_is_between_them() {
        let text = b"\n {\"a\":\"}{\\\"\\\\\"}{\"b\":[{}]}\r\n\n{\n  \"c\": {\n  }\n}\n{}";
        for buffer in [1, 2, 7, 1000] {
            let Cut { found, error } = cut(text, buffer);
            assert!(error.is_none(), "{error:?}");
            let expected = [(2, r#"{"a":"}{\"\\"}"#), (2, r#"{"b":[{}]}"#), (4, "{\n  \"c\": {\n  }\n}"), (8, "{}")];
            assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
        }
        assert!(cut(b" \n\t", 3).found.is_empty());
    }

    #[test]
    fn what_is_no_object_is_named_with_its_line() {
        for (text, line, what) in [
            ("{}\n{\"a\":\n\n", 2, "the input ends"),
            ("{}\n\n[{}]", 3, "found '['"),
            ("{} true", 1, "found 't'"),
            ("{\"a\":\"}", 1, "the input ends"),
        ] {
            let (at, error) = cut(text.as_bytes(), 4).error.unwrap();
            assert_eq!(at, line, "{text}");
            assert!(error.to_string().contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let deep = |levels: usize| ["{\"a\":".repeat(levels), "1".to_owned(), "}".repeat(levels)].concat();
        assert!(cut(deep(MAX_DEPTH).as_bytes(), 100).error.is_none());
        assert!(matches!(cut(deep(MAX_DEPTH + 1).as_bytes(), 100).error, Some((1, CutError::TooDeep))));
        let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(cut(long(MAX_DOCUMENT).as_bytes(), 4096).error.is_none());
        assert!(matches!(cut(long(MAX_DOCUMENT + 1).as_bytes(), 4096).error, Some((1, CutError::TooLong))));
        let endless = "{".to_owned() + &" ".repeat(2 * MAX_DOCUMENT);
        assert!(matches!(cut(endless.as_bytes(), 4096).error, Some((1, CutError::TooLong))));
    }
}
