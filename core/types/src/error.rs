//! What every error says about itself: its class, which decides what the caller may do next.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error of any type, kept as a cause.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// What the caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The request can never succeed as it is; it had no effect.
    Invalid,
    /// What was sent along with the request is not what it should be; nothing was pinned.
    Malformed,
    /// What was asked for does not exist; nothing was done.
    NotFound,
    /// The request contradicts the present state; nothing was done.
    Conflict,
    /// Not now: the same request may succeed later.
    Unavailable,
    /// It may or may not have taken effect; repeating it with the same key is safe.
    Unknown,
    /// Whoever answered cannot go on.
    Fatal,
}

/// An error as it travels between peers and to users: never a Rust enum, never a Debug string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// What the caller may do.
    pub class: ErrorClass,
    /// What happened, for a human, with its causes.
    pub message: String,
}

impl WireError {
    /// An error of `class` with a message for a human.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// An error of `class` whose message is `error` with all its causes.
    pub fn from_error(class: ErrorClass, error: &dyn Error) -> Self {
        Self::new(class, ErrorChain(error).to_string())
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for WireError {}

/// Prints an error followed by its causes, separated by `: `.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_prints_every_cause_once() {
        let inner = WireError::new(ErrorClass::Unavailable, "no route");
        let outer = std::io::Error::other(inner);
        assert_eq!(ErrorChain(&outer).to_string(), "no route");
    }
}
