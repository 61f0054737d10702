//! Paths of requests: decoded, cleaned, and where a request is sent when its path is not clean.

use http::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::error::Failure;

/// What a path in a `Location` must not hold as it is. The backslash is here because browsers take it for a slash.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path without its escapes.
pub(crate) fn decode(path: &str) -> Result<String, Failure> {
    if !has_whole_escapes(path) {
        return Err(Failure::bad_request("invalid URL escape in the path"));
    }
    match percent_decode_str(path).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Failure::bad_request("the path is not UTF-8")),
    }
}

/// Whether every `%` begins an escape: two hex digits follow it.
pub(crate) fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Where a request for `path` belongs, if not there.
///
/// Cleaning comes first: a path that begins with two slashes would be another host in a `Location`.
pub(crate) fn redirect(path: &str, query: Option<&str>) -> Option<(StatusCode, String)> {
    if !path.starts_with('/') {
        return None;
    }
    let cleaned = clean(path);
    let (status, target) = if cleaned != path {
        (StatusCode::MOVED_PERMANENTLY, cleaned.as_str())
    } else {
        let stripped = path.strip_suffix('/').filter(|stripped| !stripped.is_empty())?;
        (StatusCode::TEMPORARY_REDIRECT, stripped)
    };
    let mut location = utf8_percent_encode(target, UNSAFE).to_string();
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    Some((status, location))
}

/// `path` without empty parts, `.` and `..`; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut cleaned = format!("/{}", parts.join("/"));
    if path.ends_with('/') && cleaned.len() > 1 {
        cleaned.push('/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(path: &str) -> Option<(u16, String)> {
        redirect(path, None).map(|(status, location)| (status.as_u16(), location))
    }

    #[test]
    fn unclean_paths_are_sent_where_they_belong() {
        assert_eq!(location("/pins"), None);
        assert_eq!(location("/"), None);
        assert_eq!(location("*"), None);
        assert_eq!(location("/pins/"), Some((307, "/pins".to_owned())));
        assert_eq!(location("/pins/./x/../y"), Some((301, "/pins/y".to_owned())));
        assert_eq!(location("/../../id"), Some((301, "/id".to_owned())));
        let with_query = redirect("/pins/", Some("cids=a,b")).unwrap();
        assert_eq!(with_query.1, "/pins?cids=a,b");
    }

    #[test]
    fn no_redirect_leaves_the_host() {
        for path in ["//evil.example/", "///evil.example", "/\\evil.example/", "/.//evil.example/", "/\\/evil.example/"]
        {
            let (_, location) = location(path).unwrap();
            assert!(!location.starts_with("//") && !location.contains('\\'), "{path}: {location}");
        }
    }

    #[test]
    fn escapes_are_checked() {
        assert_eq!(decode("/a%2Fb%c3%a9").unwrap(), "/a/bé");
        for bad in ["/%", "/%4", "/%zz", "/%ff", "/a%2"] {
            assert_eq!(decode(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
