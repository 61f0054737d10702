//! What the peer said, and what happened before it could say anything.

use cluster_types::{ErrorChain, ErrorClass};
use serde::{Deserialize, Serialize};

/// An error the API answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFailure {
    /// HTTP status; 0 when there was no answer.
    pub code: u16,
    /// What the peer said.
    pub message: String,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The peer answered with an error, or its stream ended with one.
    #[error("{}", .0.message)]
    Api(ApiFailure),
    /// No endpoint answered.
    #[error("cannot reach the cluster API at {endpoint}; is the peer running there?")]
    Connection {
        /// The last one tried.
        endpoint: String,
        /// Why it did not answer.
        #[source]
        cause: reqwest::Error,
    },
    /// A peer cannot be reached by its id.
    #[error("{reason}")]
    Unreachable {
        /// Which one, and why.
        reason: String,
    },
    /// An endpoint was reached, and did not answer in the time that was allowed.
    #[error("the cluster API at {endpoint} did not answer within the time that was allowed")]
    Timeout {
        /// Which one.
        endpoint: String,
    },
    /// The answer was cut off or makes no sense.
    #[error("the answer of the cluster API cannot be read: {reason}")]
    BadAnswer {
        /// What is wrong with it.
        reason: String,
    },
    /// Something on this side is wrong.
    #[error("{reason}")]
    Local {
        /// What.
        reason: String,
    },
}

impl ClientError {
    /// The error as API clients print it: with the code of the answer, 0 when there was none.
    pub fn as_failure(&self) -> ApiFailure {
        match self {
            Self::Api(failure) => failure.clone(),
            Self::Connection { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::BadAnswer { .. }
            | Self::Local { .. } => ApiFailure { code: 0, message: ErrorChain(self).to_string() },
        }
    }

    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Api(ApiFailure { code: 404, .. }) => ErrorClass::NotFound,
            Self::Api(ApiFailure { code: 409, .. }) => ErrorClass::Conflict,
            Self::Api(ApiFailure { code: 503, .. })
            | Self::Connection { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. } => ErrorClass::Unavailable,
            Self::Api(ApiFailure { code: 400..=499, .. }) | Self::Local { .. } => ErrorClass::Invalid,
            Self::Api(_) | Self::BadAnswer { .. } => ErrorClass::Unknown,
        }
    }
}
