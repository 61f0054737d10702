//! What pages of other origins may see and do, as browsers are told (CORS).
//!
//! The rules are those of the original: a preflight is always answered with 204, and leave is given by headers alone.
//! Keeping pages out is what [`Screen`](super::screen::Screen) does.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use crate::config::{CorsRules, RestConfig};
use crate::error::ApiError;
use crate::reply::{self, Body};

/// What an answer to a preflight depends on.
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
/// What any other answer depends on.
const ANSWER_VARY: HeaderValue = HeaderValue::from_static("Origin");
/// The methods that are meant when none are given.
const USUAL_METHODS: [&str; 3] = ["GET", "POST", "HEAD"];
/// The headers that are meant when none are given.
const USUAL_HEADERS: [&str; 3] = ["accept", "content-type", "x-requested-with"];

/// The rules, in the form in which they are compared.
#[derive(Debug)]
pub(crate) struct Cors {
    /// Patterns in lower case; none: every origin.
    origins: Vec<String>,
    methods: Vec<String>,
    /// Names in lower case; none: every header.
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    credentials: bool,
    max_age: Duration,
}

impl Cors {
    /// The rules of a configuration.
    pub(crate) fn new(config: &RestConfig) -> Self {
        let rules = &config.cors;
        let all = |list: &[String]| list.iter().any(|entry| entry == "*");
        let lower = |list: &[String]| list.iter().map(|entry| entry.to_ascii_lowercase()).collect::<Vec<_>>();
        let methods = match rules.allowed_methods.is_empty() {
            true => USUAL_METHODS.map(str::to_owned).to_vec(),
            false => rules.allowed_methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        };
        let headers = match rules.allowed_headers.is_empty() {
            true => USUAL_HEADERS.map(str::to_owned).to_vec(),
            false if all(&rules.allowed_headers) => Vec::new(),
            false => lower(&rules.allowed_headers),
        };
        Self {
            origins: if all(&rules.allowed_origins) { Vec::new() } else { lower(&rules.allowed_origins) },
            methods,
            headers,
            exposed: exposed(rules),
            credentials: rules.allow_credentials,
            max_age: rules.max_age,
        }
    }

    /// Whether pages of every origin are let in.
    pub(crate) fn allows_all_origins(&self) -> bool {
        self.origins.is_empty()
    }

    /// Whether a page of `origin` may send requests with `method`.
    pub(crate) fn allows(&self, origin: &str, method: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let origin_fits = self.allows_all_origins() || self.origins.iter().any(|pattern| fits(pattern, &origin));
        origin_fits && (method == Method::OPTIONS.as_str() || self.methods.iter().any(|known| known == method))
    }

    /// The answer to a request if it is a preflight.
    pub(crate) fn preflight(&self, method: &Method, asked: &HeaderMap) -> Option<Response<Body>> {
        let wanted = asked.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|wanted| !wanted.is_empty())?;
        if method != Method::OPTIONS {
            return None;
        }
        let mut response = reply::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.insert(VARY, PREFLIGHT_VARY);
        let (Some(origin), Ok(method)) = (asked.get(ORIGIN), wanted.to_str()) else { return Some(response) };
        if !self.allows(text(origin), method) || !self.allows_headers(asked) {
            return Some(response);
        }
        self.let_in(origin, headers);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        for named in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter(|named| !named.is_empty()) {
            headers.append(ACCESS_CONTROL_ALLOW_HEADERS, named.clone());
        }
        if !self.max_age.is_zero() {
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        }
        Some(response)
    }

    /// Adds to an answer what the page that asked may do with it.
    pub(crate) fn mark(&self, method: &Method, asked: &HeaderMap, answer: &mut HeaderMap) {
        answer.append(VARY, ANSWER_VARY);
        let Some(origin) = asked.get(ORIGIN).filter(|origin| self.allows(text(origin), method.as_str())) else {
            return;
        };
        self.let_in(origin, answer);
        if let Some(exposed) = &self.exposed {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn let_in(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        if self.allows_all_origins() {
            // Credentials of the user for every page there is: browsers refuse the two together, and so they are not said.
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return;
        }
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    fn allows_headers(&self, asked: &HeaderMap) -> bool {
        let lines = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
        let mut names = lines.iter().flat_map(|line| text(line).split(',')).map(str::trim);
        self.headers.is_empty()
            || names.all(|name| name.is_empty() || self.headers.iter().any(|known| name.eq_ignore_ascii_case(known)))
    }
}

/// Whether the rules can be sent as headers.
pub(crate) fn check(rules: &CorsRules) -> Result<(), ApiError> {
    let unfit = |name: &&String| HeaderValue::from_str(name).is_err();
    match rules.exposed_headers.iter().find(unfit) {
        Some(name) => Err(ApiError::InvalidHeader { name: name.clone() }),
        None => Ok(()),
    }
}

fn exposed(rules: &CorsRules) -> Option<HeaderValue> {
    let names = rules.exposed_headers.join(", ");
    HeaderValue::from_str(&names).ok().filter(|names| !names.is_empty())
}

/// A header as text; one that is none fits no rule.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// Whether a text is a pattern with at most one `*`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://page.example";

    fn cors(change: impl FnOnce(&mut CorsRules)) -> Cors {
        let mut config = RestConfig::default();
        change(&mut config.cors);
        Cors::new(&config)
    }

    fn ask(cors: &Cors, wanted: &str, headers: &str) -> HeaderMap {
        let mut asked = HeaderMap::new();
        asked.insert(ORIGIN, HeaderValue::from_static(PAGE));
        asked.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_str(wanted).unwrap());
        asked.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(headers).unwrap());
        let response = cors.preflight(&Method::OPTIONS, &asked).unwrap();
        assert_eq!((response.status(), response.headers()[VARY].clone()), (StatusCode::NO_CONTENT, PREFLIGHT_VARY));
        response.headers().clone()
    }

    fn is_let_in(answer: &HeaderMap) -> bool {
        answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    }

    #[test]
    fn a_preflight_is_what_asks_for_a_method() {
        let cors = cors(|_| ());
        assert!(cors.preflight(&Method::OPTIONS, &HeaderMap::new()).is_none());
        let asked = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"))]);
        assert!(cors.preflight(&Method::GET, &asked).is_none());
        let without_origin = cors.preflight(&Method::OPTIONS, &asked).unwrap();
        assert!(!is_let_in(without_origin.headers()));
    }

    #[test]
    fn leave_needs_origin_method_and_headers_together() {
        let named = cors(|rules| {
            rules.allowed_origins = vec!["https://*.Example".to_owned()];
            rules.allowed_methods = vec!["delete".to_owned()];
            rules.allowed_headers = vec!["X-One".to_owned(), "authorization".to_owned()];
            rules.max_age = Duration::from_secs(600);
        });
        let answer = ask(&named, "DELETE", "x-one, Authorization");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "DELETE");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-one, Authorization");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "600");
        for (method, headers) in [("GET", ""), ("DELETE", "x-two"), ("DELETE", "content-type")] {
            assert!(!is_let_in(&ask(&named, method, headers)), "{method} {headers}");
        }
        let other = cors(|rules| rules.allowed_origins = vec!["https://other.example".to_owned()]);
        assert!(!is_let_in(&ask(&other, "GET", "")));
    }

    #[test]
    fn empty_lists_mean_what_they_mean_in_the_original() {
        let empty = cors(|rules| *rules = CorsRules::default());
        for method in USUAL_METHODS {
            let answer = ask(&empty, method, "Content-Type");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
            assert!(!answer.contains_key(ACCESS_CONTROL_MAX_AGE));
        }
        assert!(!is_let_in(&ask(&empty, "DELETE", "")));
        assert!(!is_let_in(&ask(&empty, "GET", "authorization")));
        assert!(is_let_in(&ask(&cors(|rules| rules.allowed_headers = vec!["*".to_owned()]), "GET", "a, b")));
    }
}
