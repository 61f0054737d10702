//! Why a command did not do what was asked.

use std::fmt;

use cluster_client::{ApiFailure, ClientError};
use cluster_types::ErrorChain;

/// A command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The API answered with an error, or could not be asked (code 0).
    Api(ApiFailure),
    /// Something on this side is wrong.
    Local {
        /// What was tried; may be empty.
        doing: &'static str,
        /// Why it failed.
        text: String,
    },
    /// It took too long.
    Deadline {
        /// What was tried.
        doing: &'static str,
    },
    /// The user gave up.
    Cancelled,
    /// Whoever read our output stopped reading; there is nobody to tell.
    OutputClosed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(failure) => f.write_str(&failure.message),
            Self::Local { doing, text } => write!(f, "error {doing}: {text}"),
            Self::Deadline { doing } => write!(f, "error {doing}: the time is over"),
            Self::Cancelled => f.write_str("error : cancelled"),
            Self::OutputClosed => f.write_str("error : the output was closed"),
        }
    }
}

impl Failure {
    /// An error on this side.
    pub(crate) fn local(doing: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Local { doing, text: ErrorChain(error).to_string() }
    }

    /// The exit code that stands for it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Api(ApiFailure { code: 0, .. }) | Self::Local { .. } | Self::OutputClosed => 1,
            Self::Api(_) => 2,
            Self::Deadline { .. } => 62,
            Self::Cancelled => 125,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let ClientError::Local { reason } = error {
            return Self::Local { doing: "", text: reason };
        }
        Self::Api(error.as_failure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_exit_code_scripts_know() {
        let api = |code| Failure::Api(ApiFailure { code, message: String::new() });
        assert_eq!(api(0).exit_code(), 1);
        assert_eq!(api(404).exit_code(), 2);
        assert_eq!(Failure::from(ClientError::Local { reason: "x".to_owned() }).exit_code(), 1);
        assert_eq!(Failure::from(ClientError::BadAnswer { reason: "x".to_owned() }).exit_code(), 1);
        assert_eq!(Failure::Deadline { doing: "" }.exit_code(), 62);
        assert_eq!(Failure::Cancelled.exit_code(), 125);
    }

    #[test]
    fn a_local_error_without_an_action_keeps_its_place() {
        let failure = Failure::from(ClientError::Local { reason: "need at least one path".to_owned() });
        assert_eq!(failure.to_string(), "error : need at least one path");
    }
}
