//! One call of Kubo's RPC: breaker, address, head of the answer, error texts.
//!
//! Every call is a POST. An answer that is not 200 becomes the error text that users of ipfs-cluster know. Deadlines
//! are the caller's ([`Client::within`]), because a pin has another one than a question; only connecting has its own.
//!
//! **Invariant:** only a failure to connect, or a connection that breaks before an answer begins, says that there is no
//! node. A connected node that does not answer one call in time has failed at that call, and may do well at others.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::IpfsError;
use cluster_types::BoxError;
use parking_lot::Mutex;
use reqwest::header::{HeaderValue, TE};
use reqwest::multipart::Form;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::answer::Answer;
use super::breaker::Breaker;
use super::endpoint::Endpoint;

/// A node that does not accept a connection in this time is taken for unreachable; Kubo is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept for the next call: the ten pins of a default tracker, and some.
const IDLE_CONNECTIONS: usize = 16;
/// The most of an error answer that is read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The most characters of an error that are shown.
const MAX_ERROR_TEXT: usize = 2048;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The command, such as `pin/add`.
    pub(super) operation: &'static str,
    query: String,
}

impl Call {
    /// A command without arguments.
    pub(super) fn new(operation: &'static str) -> Self {
        Self { operation, query: String::new() }
    }

    /// Adds `key=value` to the query.
    #[must_use]
    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(key);
        self.query.push('=');
        self.query.extend(url::form_urlencoded::byte_serialize(value.to_string().as_bytes()));
        self
    }

    /// Command and query, as error texts name it.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.operation, self.query)
    }
}

/// A call failed; what Kubo said is kept apart, because some of its errors are answers.
#[derive(Debug)]
pub(super) enum Failure {
    /// Kubo said no.
    Said {
        /// Command and query.
        path: String,
        /// HTTP status; 200 when the error came after the answer had begun.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Everything else.
    Other(IpfsError),
}

impl From<IpfsError> for Failure {
    fn from(error: IpfsError) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for IpfsError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Said { path, status, message } => {
                Self::Refused { reason: format!("IPFS error ({path}). Code: {status}. Message: {message}") }
            }
            Failure::Other(error) => error,
        }
    }
}

/// The error object of Kubo's RPC.
#[derive(Deserialize)]
struct ErrorObject {
    #[serde(rename = "Message")]
    message: Option<String>,
}

/// The message in an error object, if `json` is one. No other answer has that field.
pub(super) fn error_message(json: &[u8]) -> Option<String> {
    serde_json::from_slice::<ErrorObject>(json).ok()?.message.map(|message| shortened(&message))
}

/// At most [`MAX_ERROR_TEXT`] characters.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_ERROR_TEXT).collect()
}

/// Speaks to one Kubo; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    endpoint: Arc<str>,
    breaker: Arc<Mutex<Breaker>>,
}

impl Client {
    /// A client for the node at `endpoint`, called `name` in errors.
    pub(super) fn new(endpoint: &Endpoint, name: &str) -> Result<Self, reqwest::Error> {
        // reqwest panics when it finds no provider, even where only plain HTTP is spoken.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that somebody else installed one in between.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ipfs-cluster/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &endpoint.unix_socket {
            builder = builder.unix_socket(path.as_str());
        }
        if endpoint.base.starts_with("http:") {
            // No certificates are needed, so a system without any is no error.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            http: builder.build()?,
            base: endpoint.base.as_str().into(),
            endpoint: name.into(),
            breaker: Arc::default(),
        })
    }

    /// Sends a call; returns the answer's beginning when Kubo says 200.
    pub(super) async fn post(&self, call: &Call, form: Option<Form>) -> Result<Answer, Failure> {
        self.breaker.lock().admit(Instant::now()).map_err(|resting| self.unreachable(resting))?;
        let url = format!("{}/api/v0/{}", self.base, call.path());
        let mut request = self.http.post(url).header(TE, HeaderValue::from_static("trailers"));
        if let Some(form) = form {
            request = request.multipart(form);
        }
        let response = match request.send().await {
            Ok(response) => {
                self.breaker.lock().succeeded();
                response
            }
            Err(error) => {
                if error.is_connect() || error.is_request() {
                    self.breaker.lock().failed();
                }
                return Err(self.unreachable(error.without_url()).into());
            }
        };
        let status = response.status().as_u16();
        let answer = Answer::new(call, response);
        if status == 200 { Ok(answer) } else { Err(refusal(call, status, answer).await) }
    }

    /// Sends a call whose answer is one JSON object of at most `limit` bytes.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        call: &Call,
        limit: usize,
        deadline: Duration,
    ) -> Result<T, Failure> {
        let body = self.within(call.operation, deadline, async { self.post(call, None).await?.whole(limit).await });
        let body = body.await?;
        if let Some(message) = error_message(&body) {
            return Err(Failure::Said { path: call.path(), status: 200, message });
        }
        serde_json::from_slice(&body)
            .map_err(|error| IpfsError::BadAnswer { operation: call.operation, reason: error.to_string() }.into())
    }

    /// Gives up on `work` after `deadline`.
    pub(super) async fn within<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.silent(operation, deadline).into()),
        }
    }

    /// The error of a call that was not answered in time. Connecting fails by itself before a deadline longer than
    /// [`CONNECT_TIMEOUT`], so the node was there.
    pub(super) fn silent(&self, operation: &'static str, deadline: Duration) -> IpfsError {
        let reason = format!("{} took longer than {} s", self.endpoint, deadline.as_secs_f64());
        IpfsError::BadAnswer { operation, reason }
    }

    fn unreachable(&self, cause: impl Into<BoxError>) -> IpfsError {
        IpfsError::Unreachable { endpoint: self.endpoint.to_string(), cause: cause.into() }
    }
}

/// What an answer other than 200 says.
async fn refusal(call: &Call, status: u16, answer: Answer) -> Failure {
    let body = answer.beginning(MAX_ERROR_BODY).await;
    let path = call.path();
    match error_message(&body) {
        Some(message) => Failure::Said { path, status, message },
        None => {
            let text = shortened(String::from_utf8_lossy(&body).trim());
            let reason = format!("IPFS request failed (is it running?) ({path}). Code {status}: {text}");
            Failure::Other(IpfsError::Refused { reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_cannot_change_the_query() {
        let call = Call::new("resolve").with("arg", "/ipns/a?b=c&d#e").with("r", true);
        assert_eq!(call.path(), "resolve?arg=%2Fipns%2Fa%3Fb%3Dc%26d%23e&r=true");
    }

    #[test]
    fn an_error_reads_as_users_know_it() {
        let said = Failure::Said { path: "pin/rm?arg=x".to_owned(), status: 500, message: "no".to_owned() };
        assert_eq!(IpfsError::from(said).to_string(), "IPFS error (pin/rm?arg=x). Code: 500. Message: no");
    }

    #[test]
    fn only_an_error_object_has_a_message() {
        assert_eq!(error_message(br#"{"Message":"no","Code":0,"Type":"error"}"#).as_deref(), Some("no"));
        assert_eq!(error_message(br#"{"Pins":[]}"#), None);
        assert_eq!(error_message(b"<html>"), None);
    }
}
