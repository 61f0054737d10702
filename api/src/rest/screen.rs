//! Keeps web pages out that have no business here.
//!
//! A browser sends requests in the name of any page it shows, also to this machine: without a word of ours for simple
//! ones (`POST` without a body), and with everything once a page's name is made to resolve to this machine. Programs
//! send no `Origin` and name the host they mean.

use http::header::{HOST, HeaderMap, ORIGIN};
use http::{Method, StatusCode};

use cluster_types::{Multiaddr, Protocol};

use super::cors::Cors;
use crate::config::RestConfig;
use crate::error::Failure;
use crate::listener::Arrival;

/// Which pages and names are known.
#[derive(Debug)]
pub(crate) struct Screen {
    hosts: Vec<String>,
    /// Whether names were given: then they hold on every address.
    named: bool,
    has_users: bool,
    /// Whether pages may only read: no method is named, and neither is an origin.
    only_read: bool,
}

impl Screen {
    /// The rules of a configuration.
    pub(crate) fn new(config: &RestConfig) -> Self {
        let listened = config.listen.iter().filter_map(host_of);
        let hosts = config.allowed_hosts.iter().cloned().chain(listened).map(|name| name.to_ascii_lowercase());
        Self {
            hosts: hosts.collect(),
            named: !config.allowed_hosts.is_empty(),
            has_users: config.credentials.is_some(),
            only_read: config.cors.allowed_methods.is_empty() && Cors::new(config).allows_all_origins(),
        }
    }

    /// Refuses what only a page could have sent that is not known.
    pub(crate) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        from: Arrival,
        cors: &Cors,
    ) -> Result<(), Failure> {
        let forbidden = |why: &str| Err(Failure::new(StatusCode::FORBIDDEN, format!("forbidden: {why}")));
        let authority = headers.get(HOST).map(|host| host.to_str().unwrap_or("?").to_ascii_lowercase());
        if let Some(authority) = &authority
            && self.asks_for_host(from)
            && !self.knows_host(authority)
        {
            return forbidden(
                "the Host header is neither an IP address nor localhost nor one of api.restapi.allowed_hosts",
            );
        }
        // A preflight has no effect.
        let Some(origin) = headers.get(ORIGIN).filter(|_| method != Method::OPTIONS) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("?").to_ascii_lowercase();
        // The page of a name that was made to resolve to this machine calls itself by that name.
        let own = origin.split_once("://").map(|(_, authority)| authority).filter(|own| self.knows_host(own));
        let may_write = !self.only_read || method == Method::GET || method == Method::HEAD;
        if (own.is_some() && own == authority.as_deref()) || (may_write && cors.allows(&origin, method.as_str())) {
            return Ok(());
        }
        forbidden("a page of this origin may not do this: api.restapi.cors_allowed_origins and cors_allowed_methods")
    }

    /// Whether a request must name a host that is known. Without names of its own this holds where only this machine
    /// asks and no password does: a page that took over a name has none to show.
    fn asks_for_host(&self, from: Arrival) -> bool {
        from.by_address && (self.named || (from.on_loopback && !self.has_users))
    }

    fn knows_host(&self, authority: &str) -> bool {
        let host = without_port(authority);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
        is_address
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.hosts.iter().any(|known| known == host)
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

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::credentials::Credentials;

    const LOCAL: Arrival =
        Arrival { address: None, peer: None, by_address: true, on_loopback: true, is_encrypted: false };
    const REMOTE: Arrival = Arrival { on_loopback: false, ..LOCAL };

    fn screen(change: impl FnOnce(&mut RestConfig)) -> (Screen, Cors) {
        let mut config = RestConfig::default();
        change(&mut config);
        (Screen::new(&config), Cors::new(&config))
    }

    fn passes((screen, cors): &(Screen, Cors), method: &Method, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        screen.check(method, &headers, LOCAL, cors).is_ok()
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
        let (screen, cors) = screen;
        assert!(screen.check(&Method::POST, &headers, LOCAL, &cors).is_ok(), "old clients name no host");
        headers.insert(HOST, HeaderValue::from_static("peer.example.org"));
        assert!(screen.check(&Method::POST, &headers, REMOTE, &cors).is_err(), "names that are given hold everywhere");
        assert!(screen.check(&Method::POST, &headers, Arrival::default(), &cors).is_ok(), "no page opens a file");
    }

    #[test]
    fn without_names_only_this_machine_asks_for_them() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("peer.example.org"))]);
        let passes = |(screen, cors): &(Screen, Cors), from| screen.check(&Method::POST, &headers, from, cors).is_ok();
        let open = screen(|_| ());
        assert!(!passes(&open, LOCAL));
        assert!(passes(&open, REMOTE));
        let page = |host: &'static str| {
            let headers = [(HOST, host.to_owned()), (ORIGIN, format!("http://{host}"))];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(&value).unwrap()));
            open.0.check(&Method::POST, &HeaderMap::from_iter(headers), REMOTE, &open.1).is_ok()
        };
        assert!(page("192.0.2.7:9094") && !page("peer.example.org:9094"), "a page of a name that nobody knows");
        let users = || Some(Credentials::new([("ann".to_owned(), "secret".to_owned())].into()));
        assert!(passes(&screen(|config| config.credentials = users()), LOCAL));
        let both = screen(|config| {
            config.credentials = users();
            config.allowed_hosts = vec!["other.example.org".to_owned()];
        });
        assert!(!passes(&both, LOCAL));
    }

    #[test]
    fn pages_may_do_what_the_settings_say() {
        let (get, post) = (&Method::GET, &Method::POST);
        let default = screen(|_| ());
        let ask = |screen: &(Screen, Cors), method, origin| passes(screen, method, "localhost:9094", Some(origin));
        assert!(ask(&default, get, "https://evil.org"));
        assert!(!ask(&default, post, "https://evil.org"));
        assert!(!ask(&default, &Method::DELETE, "null"));
        assert!(!ask(&default, post, "http://localhost:80"));
        assert!(ask(&default, post, "http://localhost:9094"), "our own page");
        let empty = screen(|config| {
            config.cors.allowed_origins.clear();
            config.cors.allowed_methods.clear();
        });
        assert!(ask(&empty, get, "https://evil.org"));
        assert!(!ask(&empty, post, "https://evil.org"), "who has set nothing has let nobody write");
        let trusted = screen(|config| {
            config.cors.allowed_origins = vec!["https://page.example".to_owned()];
            config.cors.allowed_methods.clear();
        });
        assert!(ask(&trusted, post, "https://page.example"));
        assert!(!ask(&trusted, &Method::DELETE, "https://page.example"));
        let named = screen(|config| {
            config.cors.allowed_origins = vec!["https://*.Example.org".to_owned()];
            config.cors.allowed_methods = vec!["post".to_owned()];
        });
        assert!(ask(&named, post, "https://a.example.org"));
        assert!(!ask(&named, post, "https://.example.org.evil"));
        assert!(!ask(&named, get, "https://a.example.org"));
        assert!(!ask(&named, post, "http://a.example.org"));
    }
}
