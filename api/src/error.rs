//! Why the server could not start, and how errors become HTTP answers.

use std::path::PathBuf;

use cluster_core::cluster::NOT_PINNED;
use cluster_types::{BoxError, ErrorClass, Multiaddr, WireError};
use http::StatusCode;
use serde::Serialize;

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// There is nothing to listen on.
    #[error("neither the libp2p nor the HTTP endpoints are enabled")]
    NoListener,
    /// An address is neither TCP nor a unix socket.
    #[error("cannot listen on {address}: write it like /ip4/127.0.0.1/tcp/9094 or /unix/<path>")]
    UnsupportedAddress {
        /// The address.
        address: Multiaddr,
    },
    /// The system refused an address.
    #[error("cannot listen on {address}: is another program (or another peer) using it?")]
    Bind {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot serve TLS with {path}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: BoxError,
    },
    /// What stands for a user's password begins like a hash and is none.
    #[error("api.restapi.basic_auth_credentials: the hash of the password of {user:?} cannot be used")]
    Password {
        /// The user.
        user: String,
        /// What is wrong with it.
        #[source]
        cause: BoxError,
    },
    /// The file that says which tokens were revoked cannot be used.
    #[error("cannot read which tokens were revoked")]
    Revocations {
        /// What is wrong with it.
        #[source]
        cause: std::io::Error,
    },
    /// The secret with which tokens are signed cannot be had.
    #[error("cannot read or make the secret of tokens")]
    TokenSecret {
        /// What is wrong with it.
        #[source]
        cause: std::io::Error,
    },
    /// The file of the access log cannot be appended to.
    #[error("cannot write the access log {path}", path = path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// An address is not one of an IPFS node's RPC.
    #[error("{address} is no address of an IPFS RPC: write /ip4/…/tcp/…, /ip6/…/tcp/…, /dns/…/tcp/… or /unix/…")]
    NodeAddress {
        /// The address.
        address: Multiaddr,
    },
    /// TLS cannot be spoken to the node.
    #[error("cannot speak TLS to the IPFS node: nobody is known who could vouch for it")]
    NodeTls {
        /// What is missing.
        #[source]
        cause: rustls::Error,
    },
    /// What the node is asked for its headers is no path.
    #[error("{path:?} in api.ipfsproxy.extract_headers_path is not a path")]
    HeadersPath {
        /// The text.
        path: String,
    },
    /// A header of the configuration cannot be sent.
    #[error("{name:?} in headers is not a valid header")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
}

impl ApiError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoListener
            | Self::UnsupportedAddress { .. }
            | Self::Tls { .. }
            | Self::Password { .. }
            | Self::Revocations { .. }
            | Self::TokenSecret { .. }
            | Self::AccessLog { .. }
            | Self::NodeAddress { .. }
            | Self::NodeTls { .. }
            | Self::HeadersPath { .. }
            | Self::InvalidHeader { .. } => ErrorClass::Invalid,
            Self::Bind { .. } => ErrorClass::Unavailable,
        }
    }
}

/// What an error answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// For a human; a few texts are compared by clients.
    pub(crate) message: String,
    /// Whether the request took effect, where that is in question.
    pub(crate) outcome: Option<&'static str>,
}

/// The JSON of a [`Failure`].
#[derive(Serialize)]
pub(crate) struct FailureBody<'a> {
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

impl Failure {
    /// The request is wrong as it stands; nothing was called.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// An answer with `status` that leaves no doubt about the outcome.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), outcome: None }
    }

    /// What goes into the body.
    pub(crate) fn body(&self) -> FailureBody<'_> {
        FailureBody { code: self.status.as_u16(), message: &self.message, outcome: self.outcome }
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        let (status, outcome) = if error.message == NOT_PINNED {
            (StatusCode::NOT_FOUND, None)
        } else {
            match error.class {
                ErrorClass::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some("failed")),
                ErrorClass::Unknown => (StatusCode::GATEWAY_TIMEOUT, Some("unknown")),
                ErrorClass::Malformed => (StatusCode::BAD_REQUEST, None),
                // The original answers 500 to all that its core refuses, and clients know that.
                ErrorClass::Invalid | ErrorClass::NotFound | ErrorClass::Conflict => {
                    (StatusCode::INTERNAL_SERVER_ERROR, None)
                }
                // A disk that fails may have written.
                ErrorClass::Fatal => (StatusCode::INTERNAL_SERVER_ERROR, Some("unknown")),
            }
        };
        Self { status, message: error.message, outcome }
    }
}
