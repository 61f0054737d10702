//! What answers of the cluster take over from the node: whose pages may see them, and further headers.
//!
//! The node knows which pages may use it (`API.HTTPHeaders` of Kubo), and refuses others itself. Requests that do not get
//! there are judged by the same rule: the node is asked, in the way that browsers ask, about the page that sent them. GET and
//! PUT, which Kubo refuses anyway, are taken here; so what Kubo says of POST holds for them, too.
//!
//! **Invariant:** a page that the node does not allow has no effect on the cluster, also while the node does not answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::ErrorChain;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT, VARY,
};
use http::request::Parts;
use http::{Method, Request, Uri};
use http_body_util::Empty;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::node::Node;

/// How long the node may take to say something of its headers.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure it is asked again only then: every request would wait for it.
const PAUSE: Duration = Duration::from_secs(10);
/// What is taken over from the answer about a page.
const OF_PAGE: [HeaderName; 3] = [ACCESS_CONTROL_ALLOW_ORIGIN, VARY, ACCESS_CONTROL_ALLOW_CREDENTIALS];

/// A page sent the request that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stranger;

/// What the node is asked for its headers.
#[derive(Debug)]
pub(super) struct NodeHeaders {
    node: Arc<Node>,
    path: Uri,
    names: Vec<HeaderName>,
    /// For how long they are kept; nothing: for ever.
    ttl: Option<Duration>,
    kept: Mutex<Kept>,
}

/// The headers that are the same for every answer.
#[derive(Debug, Default)]
struct Kept {
    headers: HeaderMap,
    /// Until when they are.
    until: Option<Instant>,
    is_lasting: bool,
}

impl NodeHeaders {
    /// Those of `node` with these `names`, asked for at `path`; kept for `ttl`, zero: for ever.
    pub(super) fn new(node: Arc<Node>, path: Uri, names: Vec<HeaderName>, ttl: Duration) -> Self {
        let names = [ACCESS_CONTROL_EXPOSE_HEADERS].into_iter().chain(names).collect();
        Self { node, path, names, ttl: (!ttl.is_zero()).then_some(ttl), kept: Mutex::default() }
    }

    /// The headers of the answer to a request; an error if it came from a page that may not send it.
    pub(super) async fn of_answer(&self, head: &Parts) -> Result<HeaderMap, Stranger> {
        let origin = head.headers.get(ORIGIN);
        let referrer = head.headers.get(REFERER).filter(|referrer| !referrer.is_empty()).map(origin_of);
        if origin.is_none() && referrer.is_none() && is_browser(&head.headers) {
            return Err(Stranger);
        }
        let other = referrer.filter(|referrer| referrer.as_ref() != origin);
        let of_referrer = async {
            match &other {
                Some(Some(page)) => Some(self.about_page(head, Some(page)).await),
                // Nobody can say who that is.
                Some(None) => Some(HeaderMap::new()),
                None => None,
            }
        };
        let (of_origin, of_referrer, kept) = tokio::join!(self.about_page(head, origin), of_referrer, self.kept());
        let may = |answer: &HeaderMap| answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN);
        if (origin.is_some() && !may(&of_origin)) || of_referrer.is_some_and(|answer| !may(&answer)) {
            return Err(Stranger);
        }
        let mut headers = kept;
        copy(&of_origin, &OF_PAGE, &mut headers);
        Ok(headers)
    }

    /// What the node says to a browser that asks whether a page may send this request; nothing if it does not answer.
    async fn about_page(&self, head: &Parts, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = head.uri.path().parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.clone());
        }
        if let Ok(method) = HeaderValue::from_str(head.method.as_str()) {
            headers.insert(ACCESS_CONTROL_REQUEST_METHOD, method);
        }
        self.ask(request).await.unwrap_or_default()
    }

    /// The headers that are the same for every answer.
    async fn kept(&self) -> HeaderMap {
        let mut kept = self.kept.lock().await;
        if kept.is_lasting || kept.until.is_some_and(|until| Instant::now() < until) {
            return kept.headers.clone();
        }
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        match self.ask(request).await {
            Some(answer) => {
                kept.headers.clear();
                copy(&answer, &self.names, &mut kept.headers);
                kept.is_lasting = self.ttl.is_none();
                kept.until = self.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
            }
            None => kept.until = Some(Instant::now() + PAUSE),
        }
        kept.headers.clone()
    }

    /// The headers of an answer of the node.
    async fn ask(&self, mut request: Request<Empty<Bytes>>) -> Option<HeaderMap> {
        request.headers_mut().insert(HOST, self.node.authority());
        let asked = async { self.node.reach().await?.send(request).await };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Some(answer.into_parts().0.headers),
            Ok(Err(error)) => {
                tracing::warn!(error = %ErrorChain(&error), "the headers of the IPFS node are missing in an answer");
                None
            }
            Err(_) => {
                tracing::warn!(node = %self.node, "the IPFS node is too slow: its headers are missing in an answer");
                None
            }
        }
    }
}

fn copy(from: &HeaderMap, names: &[HeaderName], into: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            into.append(name.clone(), value.clone());
        }
    }
}

/// Whether this is a browser that does not say whose page it shows. Electron is let in as Kubo does.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    agent.starts_with(b"Mozilla") && !agent.windows(8).any(|word| word == b"Electron")
}

/// The origin of the page that a request names as where it comes from; nothing if that is no address.
fn origin_of(referrer: &HeaderValue) -> Option<HeaderValue> {
    let address: Uri = referrer.to_str().ok()?.split('#').next()?.parse().ok()?;
    let (scheme, authority) = (address.scheme_str()?, address.authority()?);
    let host = authority.as_str().rsplit('@').next()?;
    HeaderValue::from_str(&format!("{scheme}://{host}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_page_is_read_from_its_address() {
        let origin = |text: &'static str| origin_of(&HeaderValue::from_static(text));
        assert_eq!(origin("http://a.example:81/x/y?z#w").unwrap(), "http://a.example:81");
        assert_eq!(origin("https://user:word@a.example/").unwrap(), "https://a.example");
        for bad in ["/x", "about:client", "a.example", "http:///x"] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn browsers_are_known_by_their_names() {
        let agent =
            |text: &'static str| is_browser(&HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(text))]));
        assert!(agent("Mozilla/5.0 (X11; Linux x86_64)"));
        assert!(!agent("Mozilla/5.0 (X11) Electron/30.0"));
        assert!(!agent("curl/8.5.0"));
        assert!(!is_browser(&HeaderMap::new()));
    }
}
