//! The query of a request: the first value of each name counts, as in the original.

use percent_encoding::percent_decode;

use crate::error::Failure;
use crate::rest::path;

/// The decoded pairs, in order.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes a query; what cannot be decoded is refused, so that an option is kept byte by byte or not at all. The
    /// original drops such pairs, and pairs with a semicolon, in silence.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(Failure::bad_request("a semicolon in the query must be written as %3B"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self { pairs })
    }

    /// The first value of `name`; empty counts as missing.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// All pairs, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A number, or `default` when it is missing.
    pub(crate) fn int(&self, name: &str, default: i32) -> Result<i32, Failure> {
        let Some(text) = self.value(name) else { return Ok(default) };
        text.parse().map_err(|_| Failure::bad_request(format!("parameter {name} invalid")))
    }

    /// A yes or no, or `default` when it is missing.
    pub(crate) fn bool(&self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.value(name) {
            None => Ok(default),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(_) => Err(Failure::bad_request(format!("parameter {name} invalid"))),
        }
    }
}

fn decode(text: &str) -> Result<String, Failure> {
    if !path::has_whole_escapes(text) {
        return Err(Failure::bad_request("invalid URL escape in the query"));
    }
    let spaced = text.replace('+', " ");
    match percent_decode(spaced.as_bytes()).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Failure::bad_request("the query is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_empty_is_missing() {
        let query = Query::parse("a=1&a=2&b=&c&d=x+y%26").unwrap();
        assert_eq!(query.value("a"), Some("1"));
        assert_eq!(query.value("b"), None);
        assert_eq!(query.value("c"), None);
        assert_eq!(query.value("d"), Some("x y&"));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_and_not_dropped() {
        for bad in ["a=%ff", "a=%", "a=%4", "%zz=a", "a=1&expire-in=1h;b=2"] {
            assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
        }
        assert_eq!(Query::parse("a=1%3B2").unwrap().value("a"), Some("1;2"));
    }

    #[test]
    fn only_the_known_spellings_are_yes_or_no() {
        let query = Query::parse("a=TRUE&b=f&c=yes&n=-1&m=x").unwrap();
        assert_eq!(query.bool("a", false), Ok(true));
        assert_eq!(query.bool("b", true), Ok(false));
        assert_eq!(query.bool("missing", true), Ok(true));
        assert_eq!(query.bool("c", true).unwrap_err().message, "parameter c invalid");
        assert_eq!(query.int("n", 0), Ok(-1));
        assert_eq!(query.int("m", 0).unwrap_err().message, "parameter m invalid");
    }
}
