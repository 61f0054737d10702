//! Keeps web pages out that have no business here.
//!
//! A browser sends requests in the name of any page it shows, also to this machine: without a word of ours for simple
//! ones (`POST` without a body), and with everything once a page's name is made to resolve to this machine. Programs
//! send no `Origin` and name the host they mean.

use http::header::{HOST, HeaderMap, ORIGIN};
use http::{Method, StatusCode};

use cluster_types::{Multiaddr, Protocol};

use crate::config::RestConfig;
use crate::error::Failure;

/// Which pages and names are known.
#[derive(Debug)]
pub(super) struct Screen {
    hosts: Vec<String>,
    any_host: bool,
    origins: Vec<String>,
    methods: Vec<String>,
}

impl Screen {
    /// The rules of a configuration.
    pub(super) fn new(config: &RestConfig) -> Self {
        let listened = config.listen.iter().filter_map(host_of);
        let hosts = config.allowed_hosts.iter().cloned().chain(listened).map(|name| name.to_ascii_lowercase());
        Self {
            hosts: hosts.collect(),
            // A page that took over a name has no password to show.
            any_host: config.credentials.is_some(),
            origins: config.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            methods: config.allowed_methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        }
    }

    /// Refuses what only a page could have sent that is not known. `on_loopback`: whether the request came to an address
    /// that only this machine reaches.
    pub(super) fn check(&self, method: &Method, headers: &HeaderMap, on_loopback: bool) -> Result<(), Failure> {
        let forbidden = |why: &str| Err(Failure::new(StatusCode::FORBIDDEN, format!("forbidden: {why}")));
        let authority = headers.get(HOST).map(|host| host.to_str().unwrap_or("?").to_ascii_lowercase());
        if let Some(authority) = &authority
            && on_loopback
            && !self.any_host
            && !self.knows_host(authority)
        {
            return forbidden(
                "the Host header is neither an IP address nor localhost nor one of api.restapi.allowed_hosts",
            );
        }
        // A preflight has no effect, and is not answered with leave.
        let Some(origin) = headers.get(ORIGIN).filter(|_| method != Method::OPTIONS) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("?").to_ascii_lowercase();
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if (own.is_some() && own == authority.as_deref()) || self.allows(&origin, method) {
            return Ok(());
        }
        forbidden("a page of this origin may not do this: api.restapi.cors_allowed_origins and cors_allowed_methods")
    }

    fn knows_host(&self, authority: &str) -> bool {
        let host = without_port(authority);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
        is_address
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.hosts.iter().any(|known| known == host)
    }

    /// As the original reads its settings, but for the method: none given means reading.
    fn allows(&self, origin: &str, method: &Method) -> bool {
        let origin_fits = self.origins.is_empty() || self.origins.iter().any(|pattern| fits(pattern, origin));
        let method_fits = match self.methods.is_empty() {
            true => method == Method::GET || method == Method::HEAD,
            false => self.methods.iter().any(|known| known == method.as_str()),
        };
        origin_fits && method_fits
    }
}

/// The name that an address is listened on by, if it is one.
fn host_of(address: &Multiaddr) -> Option<String> {
    let (Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) = address.iter().next()? else {
        return None;
    };
    Some(name.into_owned())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        Some(_) | None => authority,
    }
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
    use http::header::HeaderValue;

    use super::*;

    fn screen(change: impl FnOnce(&mut RestConfig)) -> Screen {
        let mut config = RestConfig::default();
        change(&mut config);
        Screen::new(&config)
    }

    fn passes(screen: &Screen, method: &Method, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        screen.check(method, &headers, true).is_ok()
    }

    #[test]
    fn a_name_that_somebody_else_owns_is_not_ours() {
        let screen = screen(|config| {
            config.allowed_hosts = vec!["Cluster.Example.org".to_owned()];
            config.listen.push("/dns4/box/tcp/9094".parse().unwrap());
        });
        for host in [
            "127.0.0.1:9094",
            "127.0.0.1",
            "[::1]:9094",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "a.localhost",
            "box:9094",
            "cluster.example.org",
        ] {
            assert!(passes(&screen, &Method::GET, host, None), "{host}");
        }
        for host in
            ["evil.org", "evil.org:9094", "127.0.0.1.evil.org", "localhost.evil.org", "", "box.evil", "1", "[x]"]
        {
            assert!(!passes(&screen, &Method::GET, host, None), "{host}");
        }
        let mut headers = HeaderMap::new();
        assert!(screen.check(&Method::POST, &headers, true).is_ok(), "old clients name no host");
        headers.insert(HOST, HeaderValue::from_static("peer.example.org"));
        assert!(screen.check(&Method::POST, &headers, false).is_ok(), "other listeners have names of any kind");
    }

    #[test]
    fn pages_may_do_what_the_settings_say() {
        let (get, post) = (&Method::GET, &Method::POST);
        let default = screen(|_| ());
        let ask = |screen: &Screen, method, origin| passes(screen, method, "localhost:9094", Some(origin));
        assert!(ask(&default, get, "https://evil.org"));
        assert!(!ask(&default, post, "https://evil.org"));
        assert!(!ask(&default, &Method::DELETE, "null"));
        assert!(!ask(&default, post, "http://localhost:80"));
        assert!(ask(&default, post, "http://localhost:9094"), "our own page");
        let empty = screen(|config| {
            config.allowed_origins.clear();
            config.allowed_methods.clear();
        });
        assert!(ask(&empty, get, "https://evil.org"));
        assert!(!ask(&empty, post, "https://evil.org"));
        let named = screen(|config| {
            config.allowed_origins = vec!["https://*.Example.org".to_owned()];
            config.allowed_methods = vec!["post".to_owned()];
        });
        assert!(ask(&named, post, "https://a.example.org"));
        assert!(!ask(&named, post, "https://.example.org.evil"));
        assert!(!ask(&named, get, "https://a.example.org"));
        assert!(!ask(&named, post, "http://a.example.org"));
    }
}
